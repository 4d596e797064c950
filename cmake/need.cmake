# plumb_need(<package> <debian package> <option>): find_package that says what to install.
macro(plumb_need package debian option)
  find_package(${package} CONFIG QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "${package} is missing. Install it:  sudo apt-get install ${debian}\n"
      "or leave out what needs it:  cmake -D${option}=OFF …")
  endif()
endmacro()
