# The target plumb::kernels: the CPU kernels compiled once, in the build that links them, from the
# file plumb_kernels_source. Read by Plumb's own build and by find_package(plumb).
add_library(plumb_kernels STATIC EXCLUDE_FROM_ALL "${plumb_kernels_source}")
add_library(plumb::kernels ALIAS plumb_kernels)
target_link_libraries(plumb_kernels PUBLIC plumb::plumb)
target_compile_definitions(plumb_kernels INTERFACE PLUMB_KERNELS_SEPARATE)
# Position-independent: a shared library, such as a Python extension, may link it. Optimised even
# where the project names no build type.
set_target_properties(plumb_kernels PROPERTIES
  POSITION_INDEPENDENT_CODE ON CXX_EXTENSIONS OFF CXX_SCAN_FOR_MODULES OFF)
target_compile_options(plumb_kernels PRIVATE $<$<CONFIG:>:-O3>)
