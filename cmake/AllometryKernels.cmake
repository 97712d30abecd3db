# The files of GPU kernels: nvcc compiles them into a module, the tests as C++.
set(ALLOMETRY_KERNEL_FILES flash_attention.cu module.cu norm.cu)
