# Programs whose kernels nvcc compiles, run on the emulator through a translation of their PTX.
#   plumb_ptx_sources(<target> <source.cu>… [DEFINITIONS …])
#       adds nvcc's object of each source and the translation of its PTX to a program, which links
#       plumb_emulator_ptx and then plumb_emulator or plumb_emulator_trace
#   plumb_ptx_test(<source.cu> [UNTRACED] [OWN_MAIN] [LIBRARIES …])
#       a doctest program of one source, and its CTest entries
# Without nvcc (or python3) PLUMB_PTX is off, and says why. The project does not enable CMake's CUDA
# language: nvcc is only called.
find_program(PLUMB_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
find_package(Python3 COMPONENTS Interpreter QUIET)
set(PLUMB_PTX_ARCHITECTURES "80" CACHE STRING
    "Compute capabilities whose PTX is translated and run, for example 80;90")

set(PLUMB_PTX ON PARENT_SCOPE)
if(NOT PLUMB_NVCC OR NOT PLUMB_CUDA_INCLUDE OR NOT Python3_FOUND)
  message(STATUS "PTX on the emulator: left out, as nvcc, the CUDA headers or python3 is missing")
  set(PLUMB_PTX OFF PARENT_SCOPE)
  function(plumb_ptx_test)
  endfunction()
  return()
endif()

set(plumb_ptx_directory "${PROJECT_SOURCE_DIR}/cuda/emulator" CACHE INTERNAL "")
# -fmad=false: ptxas contracts nothing; nvcc then writes each sum and product with its rounding.
set(plumb_nvcc_flags -std=c++20 -O2 -fmad=false --expt-relaxed-constexpr -lineinfo
    -Xcompiler=-ffp-contract=off -Xcompiler=-pthread CACHE INTERNAL "")

# Kernels are full of fma, which is a call into libm unless the compiler may use the instruction.
# -O1 compiles in half the time of -O2 (0.3 ms a statement) and runs at half its speed.
set(plumb_ptx_flags -O1 -ffp-contract=off -fno-strict-aliasing -fno-math-errno -fno-trapping-math)
include(CheckCXXSourceRuns)
check_cxx_source_runs("int main() { return __builtin_cpu_supports(\"fma\") ? 0 : 1; }" PLUMB_HOST_FMA)
if(PLUMB_HOST_FMA)
  list(APPEND plumb_ptx_flags -mfma)
endif()
set(plumb_ptx_flags ${plumb_ptx_flags} CACHE INTERNAL "")

add_library(plumb_emulator_ptx STATIC
  "${plumb_ptx_directory}/ptx_arithmetic.cpp" "${plumb_ptx_directory}/ptx_runtime.cpp"
  "${plumb_ptx_directory}/ptx_warp.cpp")
target_compile_features(plumb_emulator_ptx PUBLIC cxx_std_20)
target_include_directories(plumb_emulator_ptx PUBLIC "${PROJECT_SOURCE_DIR}/cuda")
target_include_directories(plumb_emulator_ptx SYSTEM PUBLIC "${PLUMB_CUDA_INCLUDE}")
target_compile_options(plumb_emulator_ptx PRIVATE -O2 -ffp-contract=off)
target_link_libraries(plumb_emulator_ptx PRIVATE plumb_warnings)

function(plumb_ptx_sources target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEFINITIONS")
  list(TRANSFORM arg_DEFINITIONS PREPEND -D)
  list(LENGTH PLUMB_PTX_ARCHITECTURES count)
  set(generate "")
  foreach(architecture IN LISTS PLUMB_PTX_ARCHITECTURES)
    list(APPEND generate -gencode "arch=compute_${architecture},code=compute_${architecture}")
  endforeach()
  foreach(source IN LISTS arg_UNPARSED_ARGUMENTS)
    get_filename_component(source "${source}" ABSOLUTE)
    get_filename_component(name "${source}" NAME_WE)
    set(folder "${CMAKE_CURRENT_BINARY_DIR}/${target}.ptx")
    file(MAKE_DIRECTORY "${folder}")
    set(object "${folder}/${name}.o")
    set(ptx_files "")
    foreach(architecture IN LISTS PLUMB_PTX_ARCHITECTURES)
      if(count EQUAL 1)
        list(APPEND ptx_files "${folder}/${name}.ptx")
      else()
        list(APPEND ptx_files "${folder}/${name}.compute_${architecture}.ptx")
      endif()
    endforeach()
    add_custom_command(
      OUTPUT "${object}" ${ptx_files} "${folder}/${name}.fatbin"
      COMMAND "${PLUMB_NVCC}" ${plumb_nvcc_flags} ${generate} ${arg_DEFINITIONS} -ccbin "${CMAKE_CXX_COMPILER}"
        "-I${PROJECT_SOURCE_DIR}/include" "-I${PROJECT_SOURCE_DIR}/cuda" "-I${PROJECT_SOURCE_DIR}/tests"
        -MD -MF "${object}.d" -MT "${object}" --keep --keep-dir "${folder}" -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d" VERBATIM COMMENT "nvcc ${name}.cu")
    target_sources(${target} PRIVATE "${object}")
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    foreach(ptx IN LISTS ptx_files)
      add_custom_command(
        OUTPUT "${ptx}.cpp"
        COMMAND Python3::Interpreter -B "${plumb_ptx_directory}/ptx_translate.py" "${ptx}" -o "${ptx}.cpp"
          --fatbin "${folder}/${name}.fatbin"
        DEPENDS "${ptx}" "${folder}/${name}.fatbin" "${plumb_ptx_directory}/ptx_translate.py"
          "${plumb_ptx_directory}/ptx_reader.py" "${plumb_ptx_directory}/ptx_arithmetic.py" "${plumb_ptx_directory}/ptx_operations.py"
        VERBATIM)
      target_sources(${target} PRIVATE "${ptx}.cpp")
      set_source_files_properties("${ptx}.cpp" PROPERTIES
        COMPILE_OPTIONS "${plumb_ptx_flags}")
    endforeach()
  endforeach()
endfunction()

# Runs in order and in a random one, for each architecture, with the tracer (races, uninitialised
# memory) unless UNTRACED. The checks of each access (bounds, alignment, freed memory) are in both.
function(plumb_ptx_test source)
  cmake_parse_arguments(PARSE_ARGV 1 arg "UNTRACED;OWN_MAIN" "" "LIBRARIES")
  get_filename_component(name "${source}" NAME_WE)
  set(target "cuda_${name}_ptx")
  add_executable(${target})
  plumb_ptx_sources(${target} "${source}" DEFINITIONS PLUMB_KERNELS_SEPARATE "PLUMB_WAY=\"ptx\""
                     "PLUMB_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  if(NOT arg_OWN_MAIN)
    target_link_libraries(${target} PRIVATE plumb_test_main)
  endif()
  target_link_libraries(${target} PRIVATE plumb::kernels ${arg_LIBRARIES} plumb_emulator_ptx)
  if(arg_UNTRACED)
    target_link_libraries(${target} PRIVATE plumb_emulator)
  else()
    # Nothing in the program asks for the tracer: it installs itself.
    target_link_libraries(${target} PRIVATE plumb_emulator_trace)
    target_link_options(${target} PRIVATE "LINKER:-u,__tsan_init")
  endif()
  # Plumb's pool keeps what it got until the process ends: only programs that do without are watched
  # for leaks.
  set(leaks "")
  if(arg_OWN_MAIN)
    set(leaks ";PLUMB_EMULATOR_LEAKS=1")
  endif()
  foreach(architecture IN LISTS PLUMB_PTX_ARCHITECTURES)
    set(device sm_80)
    if(architecture GREATER_EQUAL 90)
      set(device sm_90)
    endif()
    foreach(order IN ITEMS forward random)
      set(test "${target}_${architecture}_${order}")
      set(run ";PLUMB_EMULATOR_ORDER=${order}${leaks}")
      add_test(NAME ${test} COMMAND ${target} WORKING_DIRECTORY "${PROJECT_BINARY_DIR}")
      set_tests_properties(${test} PROPERTIES LABELS cuda-ptx TIMEOUT 600 PROCESSORS 1 SKIP_RETURN_CODE 77
        ENVIRONMENT
        "PLUMB_PTX_TARGET=sm_${architecture};PLUMB_EMULATOR_ARCHITECTURE=${device}${run}")
    endforeach()
  endforeach()
endfunction()
