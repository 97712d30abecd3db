# LibTorch from the PyPI wheel, as imported targets declared by hand: the wheel's own package configuration demands a
# matching CUDA toolkit even for programs that never touch a GPU.
if(NOT ALLOMETRY_TORCH_DIR)
  set(deps $ENV{ALLOMETRY_DEPS})
  if(NOT deps)
    set(deps ${CMAKE_SOURCE_DIR}/.deps)
  endif()
  file(GLOB candidates ${deps}/lib/python3*/site-packages/torch)
  if(candidates)
    list(GET candidates 0 ALLOMETRY_TORCH_DIR)
  endif()
endif()
if(NOT EXISTS ${ALLOMETRY_TORCH_DIR}/include/torch/csrc/api/include/torch/torch.h)
  message(FATAL_ERROR "LibTorch not found in '${ALLOMETRY_TORCH_DIR}'. Run deploy/install-deps.sh, or pass "
    "-DALLOMETRY_TORCH_DIR=<folder with include/ and lib/>, or -DALLOMETRY_BUILD_TRAINER=OFF.")
endif()
message(STATUS "LibTorch: ${ALLOMETRY_TORCH_DIR}")

set(torch_nvidia_rpath)
file(GLOB torch_nvidia_libs ${ALLOMETRY_TORCH_DIR}/../nvidia/*/lib)
foreach(dir ${torch_nvidia_libs})
  list(APPEND torch_nvidia_rpath ${dir})
endforeach()

# The major version of the CUDA that the wheel was built for: its GPUs need a driver of the same one.
set(ALLOMETRY_TORCH_CUDA_MAJOR 0)
if(EXISTS ${ALLOMETRY_TORCH_DIR}/version.py)
  file(STRINGS ${ALLOMETRY_TORCH_DIR}/version.py torch_cuda REGEX "^cuda.*'[0-9]+\\.")
  if(torch_cuda MATCHES "'([0-9]+)\\.")
    set(ALLOMETRY_TORCH_CUDA_MAJOR ${CMAKE_MATCH_1})
  endif()
endif()

add_library(torch_cpu_only INTERFACE)
target_include_directories(torch_cpu_only SYSTEM INTERFACE
  ${ALLOMETRY_TORCH_DIR}/include ${ALLOMETRY_TORCH_DIR}/include/torch/csrc/api/include)
target_link_directories(torch_cpu_only INTERFACE ${ALLOMETRY_TORCH_DIR}/lib)
target_link_options(torch_cpu_only INTERFACE
  -Wl,-rpath,${ALLOMETRY_TORCH_DIR}/lib "LINKER:--allow-shlib-undefined")
foreach(dir ${torch_nvidia_rpath})
  target_link_options(torch_cpu_only INTERFACE -Wl,-rpath,${dir} -Wl,-rpath-link,${dir})
endforeach()
if(ALLOMETRY_MOLD)
  # mold 1.10 begins the read-only-after-relocation segment at a program's zero-initialised thread-local variables, on a page
  # that is not mapped, and such a program does not start.
  target_link_options(torch_cpu_only INTERFACE LINKER:-z,norelro)
endif()
target_link_libraries(torch_cpu_only INTERFACE torch_cpu c10 Threads::Threads)
target_compile_definitions(torch_cpu_only INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
