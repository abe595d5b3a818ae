// bfloat16: the upper half of a float.

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

INLINE float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

INLINE float wide(bf16 value) { return of_bits((uint32_t)value << 16); }

INLINE bf16 narrow(float value) {  // to the nearest, ties to even
  uint32_t bits = bits_of(value);
  return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
