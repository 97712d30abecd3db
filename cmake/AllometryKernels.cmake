# The files of GPU kernels: nvcc compiles them into a module, the tests as C++.
set(ALLOMETRY_KERNEL_FILES
  convolution.cu cross_entropy.cu experts.cu flash_attention.cu gates.cu linear_attention.cu module.cu norm.cu
  optimizers.cu row_random.cu softmax.cu)
