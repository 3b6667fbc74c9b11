#include "textflag.h"

// System calls (asm/unistd_64.h), and what the hooks look for.
#define SYS_LSEEK    8
#define SYS_IOCTL    16
#define SYS_SOCKET   41
#define SYS_SENDTO   44
#define SYS_RECVFROM 45

#define PAGEMAP_SCAN      0xc0606610
#define SEEK_DATA         3
#define AF_NETLINK        16
#define NETLINK_NETFILTER 12

#define CHANNEL      100
#define MSG_NOSIGNAL 0x4000
#define EINTR        4

// The imports lie this far above the page that the code is in.
#define IMPORTS       0xf000
#define IMPORT_SYSCALL 0
#define IMPORT_ERRNO   8

#define ANSWER_RETURN 1
#define ANSWER_ERROR  2

// ASK puts the call AX(DI, SI, DX) to the channel. What is not answered goes
// on to plain, with everything as it was.
#define ASK(HOOK) \
	SUBQ $72, SP; \
	MOVQ AX, 0(SP); \
	MOVQ DI, 8(SP); \
	MOVQ SI, 16(SP); \
	MOVQ DX, 24(SP); \
	MOVL $SYS_SENDTO, AX; \
	MOVL $CHANNEL, DI; \
	MOVQ SP, SI; \
	MOVL $32, DX; \
	MOVL $MSG_NOSIGNAL, R10; \
	XORL R8, R8; \
	XORL R9, R9; \
	SYSCALL; \
	CMPQ AX, $32; \
	JNE  restore; \
receive: \
	MOVL $SYS_RECVFROM, AX; \
	MOVL $CHANNEL, DI; \
	LEAQ 32(SP), SI; \
	MOVL $16, DX; \
	XORL R10, R10; \
	XORL R8, R8; \
	XORL R9, R9; \
	SYSCALL; \
	CMPQ AX, $-EINTR; \
	JEQ  receive; \
	CMPQ AX, $16; \
	JNE  restore; \
	MOVQ 40(SP), AX; \
	MOVQ 32(SP), CX; \
	CMPQ CX, $ANSWER_RETURN; \
	JEQ  done; \
	CMPQ CX, $ANSWER_ERROR; \
	JEQ  fail; \
restore: \
	MOVQ 0(SP), AX; \
	MOVQ 8(SP), DI; \
	MOVQ 16(SP), SI; \
	MOVQ 24(SP), DX; \
	ADDQ $72, SP; \
plain: \
	MOVQ DX, CX; \
	MOVQ SI, DX; \
	MOVQ DI, SI; \
	MOVQ AX, DI; \
	LEAQ HOOK(SB), R11; \
	ANDQ $~4095, R11; \
	MOVQ (IMPORTS+IMPORT_SYSCALL)(R11), R11; \
	JMP  R11; \
fail: \
	LEAQ HOOK(SB), R11; \
	ANDQ $~4095, R11; \
	MOVQ (IMPORTS+IMPORT_ERRNO)(R11), R11; \
	CALL R11; \
	MOVQ 40(SP), CX; \
	MOVL CX, (AX); \
	MOVQ $-1, AX; \
done: \
	ADDQ $72, SP; \
	RET

// int ioctl(int fd, unsigned long request, void *argument)
TEXT ·hookIoctl(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $SYS_IOCTL, AX
	CMPL SI, $PAGEMAP_SCAN
	JNE  plain
	ASK(·hookIoctl)

// off_t lseek(int fd, off_t offset, int whence)
TEXT ·hookLseek(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $SYS_LSEEK, AX
	CMPL DX, $SEEK_DATA
	JNE  plain
	ASK(·hookLseek)

// int socket(int domain, int type, int protocol)
TEXT ·hookSocket(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $SYS_SOCKET, AX
	CMPL DI, $AF_NETLINK
	JNE  plain
	CMPL DX, $NETLINK_NETFILTER
	JNE  plain
	ASK(·hookSocket)

// Where the code is. A Go function value would lead to a wrapper.
DATA ·hookAddresses+0(SB)/8, $·hookIoctl(SB)
DATA ·hookAddresses+8(SB)/8, $·hookLseek(SB)
DATA ·hookAddresses+16(SB)/8, $·hookSocket(SB)
GLOBL ·hookAddresses(SB), RODATA, $24
