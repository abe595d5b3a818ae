// As many floats as the processor adds and multiplies at once.

#ifndef VECTOR
#define VECTOR

#include "number.h"

#ifdef __AVX512F__
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }

// gcc would read a line again for every product, and reading, not multiplying, would set the pace.
#ifdef __AVX__
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value)
#endif

#endif
