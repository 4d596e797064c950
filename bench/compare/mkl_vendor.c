// PyTorch's wheel carries MKL, which uses AVX-512 only if the processor's maker is Intel: on an AMD processor
// with AVX-512 its products run at half their speed. Loaded before it (LD_PRELOAD), this answers its
// question, so that the peer is measured at its best. Built by setup.sh; without effect on Intel.
int mkl_serv_intel_cpu_true(void) { return 1; }
int mkl_serv_intel_cpu(void) { return 1; }
