// Whether this process may use the tile registers; see tiles.py.

#include "tiles.h"

#ifdef TILES

#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_TILES = 18 };  // linux/arch/x86/include/uapi/asm/prctl.h

// 1 where the system lets it.
long tiles_allowed(long threads) {
  (void)threads;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILES) == 0;
}

#else

long tiles_allowed(long threads) {
  (void)threads;
  return 0;
}

#endif
