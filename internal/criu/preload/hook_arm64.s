#include "textflag.h"

// System calls (asm-generic/unistd.h), and what the hooks look for.
#define SYS_IOCTL    29
#define SYS_LSEEK    62
#define SYS_SOCKET   198
#define SYS_SENDTO   206
#define SYS_RECVFROM 207

#define PAGEMAP_SCAN      0xc0606610
#define SEEK_DATA         3
#define AF_NETLINK        16
#define NETLINK_NETFILTER 12

#define CHANNEL      100
#define MSG_NOSIGNAL 0x4000
#define EINTR        4

// The imports lie this far above the page that the code is in.
#define IMPORTS        0xf000
#define IMPORT_SYSCALL 0
#define IMPORT_ERRNO   8

#define ANSWER_RETURN 1
#define ANSWER_ERROR  2

// ASK puts the call R8(R0, R1, R2) to the channel. What is not answered goes
// on to plain, with everything as it was. The jump from there is by R16, as
// from a procedure linkage table: functions may allow no other (BTI).
#define ASK \
	SUB  $64, RSP; \
	MOVD R8, 0(RSP); \
	MOVD R0, 8(RSP); \
	MOVD R1, 16(RSP); \
	MOVD R2, 24(RSP); \
	MOVD R30, 48(RSP); \
	MOVD $SYS_SENDTO, R8; \
	MOVD $CHANNEL, R0; \
	MOVD RSP, R1; \
	MOVD $32, R2; \
	MOVD $MSG_NOSIGNAL, R3; \
	MOVD $0, R4; \
	MOVD $0, R5; \
	SVC; \
	CMP  $32, R0; \
	BNE  restore; \
receive: \
	MOVD $SYS_RECVFROM, R8; \
	MOVD $CHANNEL, R0; \
	ADD  $32, RSP, R1; \
	MOVD $16, R2; \
	MOVD $0, R3; \
	MOVD $0, R4; \
	MOVD $0, R5; \
	SVC; \
	CMN  $EINTR, R0; \
	BEQ  receive; \
	CMP  $16, R0; \
	BNE  restore; \
	MOVD 40(RSP), R0; \
	MOVD 32(RSP), R9; \
	CMP  $ANSWER_RETURN, R9; \
	BEQ  done; \
	CMP  $ANSWER_ERROR, R9; \
	BEQ  fail; \
restore: \
	MOVD 0(RSP), R8; \
	MOVD 8(RSP), R0; \
	MOVD 16(RSP), R1; \
	MOVD 24(RSP), R2; \
	ADD  $64, RSP; \
plain: \
	MOVD R2, R3; \
	MOVD R1, R2; \
	MOVD R0, R1; \
	MOVD R8, R0; \
	ADR  restore, R9; \
	AND  $~4095, R9; \
	MOVD $IMPORTS, R10; \
	ADD  R10, R9; \
	MOVD IMPORT_SYSCALL(R9), R16; \
	JMP  (R16); \
fail: \
	ADR  restore, R9; \
	AND  $~4095, R9; \
	MOVD $IMPORTS, R10; \
	ADD  R10, R9; \
	MOVD IMPORT_ERRNO(R9), R9; \
	CALL (R9); \
	MOVD 40(RSP), R9; \
	MOVW R9, (R0); \
	MOVD $-1, R0; \
done: \
	MOVD 48(RSP), R30; \
	ADD  $64, RSP; \
	RET

// int ioctl(int fd, unsigned long request, void *argument)
TEXT ·hookIoctl(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $SYS_IOCTL, R8
	MOVD $PAGEMAP_SCAN, R9
	CMPW R9, R1
	BNE  plain
	ASK

// off_t lseek(int fd, off_t offset, int whence)
TEXT ·hookLseek(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $SYS_LSEEK, R8
	CMPW $SEEK_DATA, R2
	BNE  plain
	ASK

// int socket(int domain, int type, int protocol)
TEXT ·hookSocket(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $SYS_SOCKET, R8
	CMPW $AF_NETLINK, R0
	BNE  plain
	CMPW $NETLINK_NETFILTER, R2
	BNE  plain
	ASK

// Where the code is. A Go function value would lead to a wrapper.
DATA ·hookAddresses+0(SB)/8, $·hookIoctl(SB)
DATA ·hookAddresses+8(SB)/8, $·hookLseek(SB)
DATA ·hookAddresses+16(SB)/8, $·hookSocket(SB)
GLOBL ·hookAddresses(SB), RODATA, $24
