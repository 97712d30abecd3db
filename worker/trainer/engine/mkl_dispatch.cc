// LibTorch's Intel MKL asks this function, which it exports, whether the processor is Intel's own, and takes matrix
// kernels of the SSE2 age on all others, whatever they can do. Defined in the program, this one answers in its place;
// which vector instructions are there MKL still finds out by itself. On an AMD EPYC it makes a training step 1.2 times
// as fast. It must be a source of the executable: a library's copy would come after MKL's own.
extern "C" __attribute__((visibility("default"))) int mkl_serv_intel_cpu_true() { return 1; }
