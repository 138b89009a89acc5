#include "go_asm.h"
#include "textflag.h"

// HMAC-SHA1 (RFC 2104, FIPS 180-4) of up to 16 messages side by side: each 32-bit word of the algorithm is a register of 16 lanes.
//
//	Z0-Z15   the 16 words of a block, W[t] in Z(t mod 16)
//	Z16-Z20  the working variables a to e
//	Z21      the round constant
//	Z22 Z23  temporaries
//	Z24-Z28  the chaining values of all lanes
//	Z29      blocks that each lane has still to do
//	Z30      1 in each lane
//	Z31      the shuffle that turns the bytes of each word round
//	K1       lanes that have a block
//	K4       the 5 words of a sum

DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

DATA round<>+0(SB)/4, $0x5a827999
DATA round<>+4(SB)/4, $0x6ed9eba1
DATA round<>+8(SB)/4, $0x8f1bbcdc
DATA round<>+12(SB)/4, $0xca62c1d6
GLOBL round<>(SB), RODATA|NOPTR, $16

// The end of the outer block, the bit after a sum of 20 bytes and the length in bits of a padded key and that sum; and what counts blocks.
DATA outer<>+0(SB)/4, $0x80000000
DATA outer<>+4(SB)/4, $672
DATA outer<>+8(SB)/4, $1
GLOBL outer<>(SB), RODATA|NOPTR, $12

DATA step<>+0(SB)/8, $64
GLOBL step<>(SB), RODATA|NOPTR, $8

// laneWork, 2752 bytes: of each lane the address of its kept states and that of its next block, 8 bytes each; the number of blocks within the
// message and of its tail, 4 bytes each; the kept states of the outer hash by word, 5 times 64 bytes; the tails, 128 bytes each.
#define WORK_STATES 0
#define WORK_NEXT 128
#define WORK_WHOLE 256
#define WORK_TAIL 320
#define WORK_OUTER 384
#define WORK_TAILS 704

// The truth tables of VPTERNLOGD for the functions of three words, the first operand being the highest bit.
#define CHOOSE 0xca
#define PARITY 0x96
#define MAJORITY 0xe8

// e += rotate(a, 5) + f(b, c, d) + constant + w; b = rotate(b, 30). The variables' names move on by one after each, so that no register does.
// The chain from round to round is the rotation and the last addition.
#define ROUND(a, b, c, d, e, w, f) \
	VPADDD     Z21, e, e      \
	VMOVDQA32  b, Z22         \
	VPTERNLOGD $f, d, c, Z22  \
	VPADDD     w, e, e        \
	VPROLD     $5, a, Z23     \
	VPADDD     Z22, e, e      \
	VPROLD     $30, b, b      \
	VPADDD     Z23, e, e

// W[t] = rotate(W[t-16] ^ W[t-14] ^ W[t-8] ^ W[t-3], 1), in the place of W[t-16].
#define NEXT(w, w14, w8, w3) \
	VPTERNLOGD $PARITY, w8, w14, w \
	VPXORD     w3, w, w            \
	VPROLD     $1, w, w

#define FIVE(w0, w1, w2, w3, w4, f) \
	ROUND(Z16, Z17, Z18, Z19, Z20, w0, f) \
	ROUND(Z20, Z16, Z17, Z18, Z19, w1, f) \
	ROUND(Z19, Z20, Z16, Z17, Z18, w2, f) \
	ROUND(Z18, Z19, Z20, Z16, Z17, w3, f) \
	ROUND(Z17, Z18, Z19, Z20, Z16, w4, f)

// The next 16 words.
#define SCHEDULE \
	NEXT(Z0, Z2, Z8, Z13)   \
	NEXT(Z1, Z3, Z9, Z14)   \
	NEXT(Z2, Z4, Z10, Z15)  \
	NEXT(Z3, Z5, Z11, Z0)   \
	NEXT(Z4, Z6, Z12, Z1)   \
	NEXT(Z5, Z7, Z13, Z2)   \
	NEXT(Z6, Z8, Z14, Z3)   \
	NEXT(Z7, Z9, Z15, Z4)   \
	NEXT(Z8, Z10, Z0, Z5)   \
	NEXT(Z9, Z11, Z1, Z6)   \
	NEXT(Z10, Z12, Z2, Z7)  \
	NEXT(Z11, Z13, Z3, Z8)  \
	NEXT(Z12, Z14, Z4, Z9)  \
	NEXT(Z13, Z15, Z5, Z10) \
	NEXT(Z14, Z0, Z6, Z11)  \
	NEXT(Z15, Z1, Z7, Z12)

// rounds applies the compression function to a block in Z0-Z15 and working variables in Z16-Z20, without the addition at its end. The names have
// moved on 80 times then, which brings them back to where they were. Clobbers Z0-Z15 and Z21-Z23.
TEXT rounds<>(SB), NOSPLIT|NOFRAME, $0
	VPBROADCASTD round<>+0(SB), Z21
	FIVE(Z0, Z1, Z2, Z3, Z4, CHOOSE)
	FIVE(Z5, Z6, Z7, Z8, Z9, CHOOSE)
	FIVE(Z10, Z11, Z12, Z13, Z14, CHOOSE)
	ROUND(Z16, Z17, Z18, Z19, Z20, Z15, CHOOSE)
	SCHEDULE
	ROUND(Z20, Z16, Z17, Z18, Z19, Z0, CHOOSE)
	ROUND(Z19, Z20, Z16, Z17, Z18, Z1, CHOOSE)
	ROUND(Z18, Z19, Z20, Z16, Z17, Z2, CHOOSE)
	ROUND(Z17, Z18, Z19, Z20, Z16, Z3, CHOOSE)
	VPBROADCASTD round<>+4(SB), Z21
	FIVE(Z4, Z5, Z6, Z7, Z8, PARITY)
	FIVE(Z9, Z10, Z11, Z12, Z13, PARITY)
	ROUND(Z16, Z17, Z18, Z19, Z20, Z14, PARITY)
	ROUND(Z20, Z16, Z17, Z18, Z19, Z15, PARITY)
	SCHEDULE
	ROUND(Z19, Z20, Z16, Z17, Z18, Z0, PARITY)
	ROUND(Z18, Z19, Z20, Z16, Z17, Z1, PARITY)
	ROUND(Z17, Z18, Z19, Z20, Z16, Z2, PARITY)
	FIVE(Z3, Z4, Z5, Z6, Z7, PARITY)
	VPBROADCASTD round<>+8(SB), Z21
	FIVE(Z8, Z9, Z10, Z11, Z12, MAJORITY)
	ROUND(Z16, Z17, Z18, Z19, Z20, Z13, MAJORITY)
	ROUND(Z20, Z16, Z17, Z18, Z19, Z14, MAJORITY)
	ROUND(Z19, Z20, Z16, Z17, Z18, Z15, MAJORITY)
	SCHEDULE
	ROUND(Z18, Z19, Z20, Z16, Z17, Z0, MAJORITY)
	ROUND(Z17, Z18, Z19, Z20, Z16, Z1, MAJORITY)
	FIVE(Z2, Z3, Z4, Z5, Z6, MAJORITY)
	FIVE(Z7, Z8, Z9, Z10, Z11, MAJORITY)
	VPBROADCASTD round<>+12(SB), Z21
	ROUND(Z16, Z17, Z18, Z19, Z20, Z12, PARITY)
	ROUND(Z20, Z16, Z17, Z18, Z19, Z13, PARITY)
	ROUND(Z19, Z20, Z16, Z17, Z18, Z14, PARITY)
	ROUND(Z18, Z19, Z20, Z16, Z17, Z15, PARITY)
	SCHEDULE
	ROUND(Z17, Z18, Z19, Z20, Z16, Z0, PARITY)
	FIVE(Z1, Z2, Z3, Z4, Z5, PARITY)
	FIVE(Z6, Z7, Z8, Z9, Z10, PARITY)
	FIVE(Z11, Z12, Z13, Z14, Z15, PARITY)
	RET

// Four rows, within each 128 bits: the first words of all four, the second, the third and the fourth.
#define QUAD(a, b, c, d, t, u) \
	VPUNPCKHDQ  b, a, t \
	VPUNPCKLDQ  b, a, a \
	VPUNPCKHDQ  d, c, u \
	VPUNPCKLDQ  d, c, c \
	VPUNPCKHQDQ c, a, b \
	VPUNPCKLQDQ c, a, a \
	VPUNPCKLQDQ u, t, c \
	VPUNPCKHQDQ u, t, d

// Four rows of four times 128 bits: the first of all four, the second, the third and the fourth.
#define SPREAD(a, b, c, d, t, u) \
	VSHUFI32X4 $0xdd, b, a, t \
	VSHUFI32X4 $0x88, b, a, a \
	VSHUFI32X4 $0xdd, d, c, u \
	VSHUFI32X4 $0x88, d, c, c \
	VSHUFI32X4 $0x88, u, t, b \
	VSHUFI32X4 $0xdd, u, t, d \
	VSHUFI32X4 $0x88, c, a, t \
	VSHUFI32X4 $0xdd, c, a, c \
	VMOVDQA64  t, a

// transpose exchanges rows and columns of the 16 by 16 words in Z0-Z15. Clobbers Z16-Z19.
TEXT transpose<>(SB), NOSPLIT|NOFRAME, $0
	QUAD(Z0, Z1, Z2, Z3, Z16, Z17)
	QUAD(Z4, Z5, Z6, Z7, Z18, Z19)
	QUAD(Z8, Z9, Z10, Z11, Z16, Z17)
	QUAD(Z12, Z13, Z14, Z15, Z18, Z19)
	SPREAD(Z0, Z4, Z8, Z12, Z16, Z17)
	SPREAD(Z1, Z5, Z9, Z13, Z18, Z19)
	SPREAD(Z2, Z6, Z10, Z14, Z16, Z17)
	SPREAD(Z3, Z7, Z11, Z15, Z18, Z19)
	RET

// The kept states of a lane: inner and outer, ten words.
#define STATES(lane, z) \
	MOVQ        (WORK_STATES+8*lane)(DI), AX \
	VMOVDQU32.Z mac_inner(AX), K1, z

// The next block of a lane.
#define BLOCK(lane, z) \
	MOVQ      (WORK_NEXT+8*lane)(DI), AX \
	VMOVDQU64 (AX), z                      \
	VPSHUFB   Z31, z, z

// A lane's sum, and the end after that of the last job.
#define SUM(z) \
	VMOVDQU32 z, K4, sumJob_sum(SI) \
	ADDQ      $sumJob__size, SI     \
	DECQ      CX                    \
	JZ        done

// func sumLanes16(jobs *sumJob, n int, work *laneWork)
TEXT ·sumLanes16(SB), NOSPLIT, $0-24
	MOVQ jobs+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ work+16(FP), DI

	// Each lane's blocks: those that lie whole in the message, and one or two of its tail, which is composed in work: the rest of the message,
	// the bytes more, a bit, zeros, and the length in bits, of the padded key too.
	VPXORD Z1, Z1, Z1
	MOVQ   SI, R8                  // job
	LEAQ   WORK_TAILS(DI), R9  // tail of the lane
	XORQ   R10, R10                // lane
	XORQ   R13, R13                // there are whole blocks
lane:
	MOVQ sumJob_mac(R8), AX
	MOVQ AX, WORK_STATES(DI)(R10*8)
	MOVQ sumJob_msg(R8), AX
	MOVQ (sumJob_msg+8)(R8), BX

	MOVQ    BX, R11
	SHRQ    $6, R11
	MOVL    R11, WORK_WHOLE(DI)(R10*4)
	ORQ     R11, R13
	MOVQ    AX, R12
	TESTQ   R11, R11
	CMOVQEQ R9, R12                // what is loaded there does not count
	MOVQ    R12, WORK_NEXT(DI)(R10*8)

	SHLQ       $6, R11
	ADDQ       R11, AX             // the rest
	MOVQ       BX, R11             // length of the message
	ANDQ       $63, BX             // length of the rest
	MOVQ       $-1, R12
	SHLXQ      BX, R12, R12
	NOTQ       R12
	KMOVQ      R12, K1
	VMOVDQU8.Z (AX), K1, Z0        // what lies behind the message is not read
	VMOVDQU64  Z0, (R9)
	VMOVDQU64  Z1, 64(R9)
	MOVL       sumJob_more(R8), AX
	MOVL       AX, (R9)(BX*1)
	MOVL       sumJob_extra(R8), AX
	ADDQ       AX, R11
	ADDQ       AX, BX
	MOVB       $0x80, (R9)(BX*1)
	ADDQ       $(1+8+63), BX
	SHRQ       $6, BX              // blocks of the tail
	MOVL       BX, WORK_TAIL(DI)(R10*4)
	SHLQ       $6, BX
	LEAQ       64(R11), AX
	SHLQ       $3, AX
	BSWAPQ     AX
	MOVQ       AX, -8(R9)(BX*1)

	ADDQ $sumJob__size, R8
	ADDQ $128, R9
	INCQ R10
	CMPQ R10, CX
	JB   lane

	// Lanes without a job have no blocks.
	MOVQ sumJob_mac(SI), AX
idle:
	CMPQ R10, $16
	JE   keys
	MOVQ AX, WORK_STATES(DI)(R10*8)
	MOVQ R9, WORK_NEXT(DI)(R10*8)
	MOVL $0, WORK_WHOLE(DI)(R10*4)
	MOVL $0, WORK_TAIL(DI)(R10*4)
	ADDQ $128, R9
	INCQ R10
	JMP  idle

keys:
	MOVL  $0x3ff, AX
	KMOVW AX, K1
	STATES(0, Z0)
	STATES(1, Z1)
	STATES(2, Z2)
	STATES(3, Z3)
	STATES(4, Z4)
	STATES(5, Z5)
	STATES(6, Z6)
	STATES(7, Z7)
	STATES(8, Z8)
	STATES(9, Z9)
	STATES(10, Z10)
	STATES(11, Z11)
	STATES(12, Z12)
	STATES(13, Z13)
	STATES(14, Z14)
	STATES(15, Z15)
	CALL transpose<>(SB)
	VMOVDQA32       Z0, Z24
	VMOVDQA32       Z1, Z25
	VMOVDQA32       Z2, Z26
	VMOVDQA32       Z3, Z27
	VMOVDQA32       Z4, Z28
	VMOVDQU32       Z5, (WORK_OUTER+0)(DI)
	VMOVDQU32       Z6, (WORK_OUTER+64)(DI)
	VMOVDQU32       Z7, (WORK_OUTER+128)(DI)
	VMOVDQU32       Z8, (WORK_OUTER+192)(DI)
	VMOVDQU32       Z9, (WORK_OUTER+256)(DI)
	VBROADCASTI32X4 swap<>(SB), Z31
	VPBROADCASTD    outer<>+8(SB), Z30

	TESTQ     R13, R13
	JZ        tails
	VMOVDQU32 WORK_WHOLE(DI), Z29

block:
	BLOCK(0, Z0)
	BLOCK(1, Z1)
	BLOCK(2, Z2)
	BLOCK(3, Z3)
	BLOCK(4, Z4)
	BLOCK(5, Z5)
	BLOCK(6, Z6)
	BLOCK(7, Z7)
	BLOCK(8, Z8)
	BLOCK(9, Z9)
	BLOCK(10, Z10)
	BLOCK(11, Z11)
	BLOCK(12, Z12)
	BLOCK(13, Z13)
	BLOCK(14, Z14)
	BLOCK(15, Z15)
	CALL transpose<>(SB)
	VMOVDQA32 Z24, Z16
	VMOVDQA32 Z25, Z17
	VMOVDQA32 Z26, Z18
	VMOVDQA32 Z27, Z19
	VMOVDQA32 Z28, Z20
	CALL rounds<>(SB)
	VPTESTMD  Z29, Z29, K1
	VPADDD    Z16, Z24, K1, Z24
	VPADDD    Z17, Z25, K1, Z25
	VPADDD    Z18, Z26, K1, Z26
	VPADDD    Z19, Z27, K1, Z27
	VPADDD    Z20, Z28, K1, Z28
	VPSUBD    Z30, Z29, K1, Z29

	// The lanes that have more go on; the others stay at a block that is theirs to read.
	VPTESTMD     Z29, Z29, K2
	KSHIFTRW     $8, K2, K3
	VPBROADCASTQ step<>(SB), Z0
	VMOVDQU64    (WORK_NEXT+0)(DI), Z1
	VMOVDQU64    (WORK_NEXT+64)(DI), Z2
	VPADDQ       Z0, Z1, K2, Z1
	VPADDQ       Z0, Z2, K3, Z2
	VMOVDQU64    Z1, (WORK_NEXT+0)(DI)
	VMOVDQU64    Z2, (WORK_NEXT+64)(DI)
	KORTESTW     K2, K2
	JNZ          block
	TESTQ        R13, R13
	JZ           outer

tails:
	XORQ R13, R13                  // the last blocks but the outer one
	LEAQ WORK_TAILS(DI), R9
	XORQ R10, R10
tail:
	MOVQ R9, WORK_NEXT(DI)(R10*8)
	ADDQ $128, R9
	INCQ R10
	CMPQ R10, $16
	JB   tail
	VMOVDQU32 WORK_TAIL(DI), Z29
	JMP  block

outer:
	// The message of the outer hash is what the inner one gave, padded: lanes and words lie right already.
	VMOVDQA32    Z24, Z0
	VMOVDQA32    Z25, Z1
	VMOVDQA32    Z26, Z2
	VMOVDQA32    Z27, Z3
	VMOVDQA32    Z28, Z4
	VPBROADCASTD outer<>+0(SB), Z5
	VPXORD       Z6, Z6, Z6
	VPXORD       Z7, Z7, Z7
	VPXORD       Z8, Z8, Z8
	VPXORD       Z9, Z9, Z9
	VPXORD       Z10, Z10, Z10
	VPXORD       Z11, Z11, Z11
	VPXORD       Z12, Z12, Z12
	VPXORD       Z13, Z13, Z13
	VPXORD       Z14, Z14, Z14
	VPBROADCASTD outer<>+4(SB), Z15
	VMOVDQU32    (WORK_OUTER+0)(DI), Z16
	VMOVDQU32    (WORK_OUTER+64)(DI), Z17
	VMOVDQU32    (WORK_OUTER+128)(DI), Z18
	VMOVDQU32    (WORK_OUTER+192)(DI), Z19
	VMOVDQU32    (WORK_OUTER+256)(DI), Z20
	CALL rounds<>(SB)
	VPADDD       (WORK_OUTER+0)(DI), Z16, Z0
	VPADDD       (WORK_OUTER+64)(DI), Z17, Z1
	VPADDD       (WORK_OUTER+128)(DI), Z18, Z2
	VPADDD       (WORK_OUTER+192)(DI), Z19, Z3
	VPADDD       (WORK_OUTER+256)(DI), Z20, Z4
	VPSHUFB      Z31, Z0, Z0
	VPSHUFB      Z31, Z1, Z1
	VPSHUFB      Z31, Z2, Z2
	VPSHUFB      Z31, Z3, Z3
	VPSHUFB      Z31, Z4, Z4
	CALL transpose<>(SB)
	MOVL  $0x1f, AX
	KMOVW AX, K4
	SUM(Z0)
	SUM(Z1)
	SUM(Z2)
	SUM(Z3)
	SUM(Z4)
	SUM(Z5)
	SUM(Z6)
	SUM(Z7)
	SUM(Z8)
	SUM(Z9)
	SUM(Z10)
	SUM(Z11)
	SUM(Z12)
	SUM(Z13)
	SUM(Z14)
	SUM(Z15)
done:
	VZEROUPPER
	RET
