// target: sm_90
// The same kernels where one may begin before the one ahead of it has ended (griddepcontrol).
#include "attention_each.cu"
