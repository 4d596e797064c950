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

# plumb_need_library(<library> <header> <debian package> <option>): and for one with a library, which
# the programs of this directory then link.
macro(plumb_need_library library header debian option)
  plumb_need_header(${header} ${debian} ${option})
  string(MAKE_C_IDENTIFIER "PLUMB_LIBRARY_${library}" plumb_library)
  find_library(${plumb_library} ${library})
  if(NOT ${plumb_library})
    message(FATAL_ERROR "${library} is missing. Install it:  sudo apt-get install ${debian}")
  endif()
  link_libraries("${${plumb_library}}")
endmacro()

# plumb_need_pkg_config(<package> <debian package> <option>): and for one whose flags pkg-config knows,
# with which its library was compiled; the target is PkgConfig::<package>.
macro(plumb_need_pkg_config package debian option)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(${package} QUIET IMPORTED_TARGET GLOBAL ${package})
  endif()
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "${package} is missing. Install it:  sudo apt-get install ${debian} pkg-config\n"
      "or leave out what needs it:  cmake -D${option}=OFF …")
  endif()
endmacro()

# plumb_need_for_models(<option>): what the headers of models/, io/, text/ and data/ need.
macro(plumb_need_for_models option)
  plumb_need(nlohmann_json nlohmann-json3-dev ${option})
  plumb_need_header(xxhash.h libxxhash-dev ${option})
  plumb_need_library(pcre2-8 pcre2.h libpcre2-dev ${option})
  plumb_need_library(utf8proc utf8proc.h libutf8proc-dev ${option})
  plumb_need_library(z zlib.h zlib1g-dev ${option})
  plumb_need_library(zstd zstd.h libzstd-dev ${option})
  plumb_need_library(simdjson simdjson.h libsimdjson-dev ${option})
endmacro()
