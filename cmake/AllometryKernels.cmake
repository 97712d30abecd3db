# The files of GPU kernels: nvcc compiles them into a module, the tests as C++.
set(ALLOMETRY_KERNEL_FILES module.cu norm.cu)
