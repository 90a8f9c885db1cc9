/* Shows a program a CPU that ends with AVX2, so that engines can be compared as on one, where the real CPU has more.
 *
 *   cc -O2 -shared -fPIC -o avx2_only.so tools/avx2_only.c && LD_PRELOAD=./avx2_only.so PROGRAM
 *
 * Linux lets a process ask for a fault at every CPUID instruction (arch_prctl(2), ARCH_SET_CPUID; x86 CPUs with the flag
 * cpuid_fault in /proc/cpuinfo). Here the fault's handler executes it and clears the bits of AVX-512, AMX, AVX-VNNI and
 * AVX-IFMA. Threads and forked children inherit the setting, a program that is executed begins anew with this library.
 * Bits: Intel, Architecture Instruction Set Extensions Programming Reference, CPUID leaves 07H and 0DH.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *code = (const uint8_t *)r[REG_RIP];
  if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) { /* no CPUID: a fault of the program's own */
    signal(number, SIG_DFL);
    return;
  }
  uint32_t leaf = r[REG_RAX], sub = r[REG_RCX], a = leaf, b, c = sub, d;
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  if (leaf == 7 && sub == 0) {
    b &= ~0xDC230000u; /* 16 AVX512F, 17 DQ, 21 IFMA, 26 PF, 27 ER, 28 CD, 30 BW, 31 VL */
    c &= ~0x00005842u; /* 1 VBMI, 6 VBMI2, 11 VNNI, 12 BITALG, 14 VPOPCNTDQ */
    d &= ~0x03C0010Cu; /* 2 4VNNIW, 3 4FMAPS, 8 VP2INTERSECT, 22 AMX-BF16, 23 AVX512-FP16, 24 AMX-TILE, 25 AMX-INT8 */
  } else if (leaf == 7 && sub == 1) {
    a &= ~0x00A00030u; /* 4 AVX-VNNI, 5 AVX512-BF16, 21 AMX-FP16, 23 AVX-IFMA */
    d &= ~0x00000430u; /* 4 AVX-VNNI-INT8, 5 AVX-NE-CONVERT, 10 AVX-VNNI-INT16 */
  } else if (leaf == 0xd && sub == 0) {
    a &= ~0x000600E0u; /* states of AVX-512 and AMX */
  }
  r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d, r[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (sigaction(SIGSEGV, &action, NULL) || syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
    fputs("avx2_only: this CPU or kernel can't fault at CPUID\n", stderr);
    _exit(3);
  }
}
