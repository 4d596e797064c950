# plumb_need(<package> <debian package> <option>): find_package that says what to install.
macro(plumb_need package debian option)
  find_package(${package} CONFIG QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "${package} is missing. Install it:  sudo apt-get install ${debian}\n"
      "or leave out what needs it:  cmake -D${option}=OFF …")
  endif()
endmacro()

# plumb_need_header(<header> <debian package> <option>): the same for a library that is one header.
macro(plumb_need_header header debian option)
  string(MAKE_C_IDENTIFIER "PLUMB_${header}" plumb_header_directory)
  find_path(${plumb_header_directory} "${header}")
  if(NOT ${plumb_header_directory})
    message(FATAL_ERROR
      "${header} is missing. Install it:  sudo apt-get install ${debian}\n"
      "or leave out what needs it:  cmake -D${option}=OFF …")
  endif()
  include_directories(SYSTEM "${${plumb_header_directory}}")
endmacro()
