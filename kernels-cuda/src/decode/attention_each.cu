// target: sm_80
// The kernels for one token, of many sequences at a time: a module of its own, so that those of one sequence stay as they are.
#define MANY_SEQUENCES
#include "attention_single.cu"
