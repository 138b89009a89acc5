#include "go_asm.h"
#include "textflag.h"

// What lanes_amd64.s does, for processors without AVX-512: 8 lanes, in registers of AVX2. There are too few of them for the words of a block.
//
//	Y0-Y4   the working variables a to e; while words are exchanged, Y0-Y7 are 8 words of 8 lanes
//	Y5      the round constant
//	Y6-Y11  temporaries
//	Y15     the shuffle that turns the bytes of each word round

DATA swap8<>+0(SB)/8, $0x0405060700010203
DATA swap8<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap8<>(SB), RODATA|NOPTR, $16

DATA round8<>+0(SB)/4, $0x5a827999
DATA round8<>+4(SB)/4, $0x6ed9eba1
DATA round8<>+8(SB)/4, $0x8f1bbcdc
DATA round8<>+12(SB)/4, $0xca62c1d6
GLOBL round8<>(SB), RODATA|NOPTR, $16

// The end of the outer block: the bit after a sum of 20 bytes, and the length in bits of a padded key and that sum.
DATA outer8<>+0(SB)/4, $0x80000000
DATA outer8<>+4(SB)/4, $672
GLOBL outer8<>(SB), RODATA|NOPTR, $8

DATA step8<>+0(SB)/8, $64
GLOBL step8<>(SB), RODATA|NOPTR, $8

// laneWork: of each lane the address of its kept states and that of its next block, 8 bytes each; the number of blocks within the message and of
// its tail, 4 bytes each; by word, 32 bytes each, the chaining values, the kept states of the outer hash, and a block; the tails, 128 bytes each.
#define WORK_STATES 0
#define WORK_NEXT 64
#define WORK_WHOLE 128
#define WORK_TAIL 160
#define WORK_CHAIN 192
#define WORK_OUTER 352
#define WORK_WORDS 512
#define WORK_TAILS const_lane8Tails

// The functions of three words, into Y6.
#define CHOOSE(b, c, d) \
	VPXOR c, d, Y6  \
	VPAND b, Y6, Y6 \
	VPXOR d, Y6, Y6

#define PARITY(b, c, d) \
	VPXOR b, c, Y6  \
	VPXOR d, Y6, Y6

#define MAJORITY(b, c, d) \
	VPAND b, c, Y6  \
	VPXOR b, c, Y7  \
	VPAND d, Y7, Y7 \
	VPOR  Y7, Y6, Y6

// e += rotate(a, 5) + f(b, c, d) + constant + w; b = rotate(b, 30).
#define ROUND(a, b, c, d, e, t, f) \
	f(b, c, d)                               \
	VPADDD Y5, e, e                          \
	VPADDD (WORK_WORDS+32*t)(DI), e, e       \
	VPADDD Y6, e, e                          \
	VPSLLD $5, a, Y7                         \
	VPSRLD $27, a, Y8                        \
	VPOR   Y7, Y8, Y8                        \
	VPADDD Y8, e, e                          \
	VPSLLD $30, b, Y7                        \
	VPSRLD $2, b, b                          \
	VPOR   Y7, b, b

// W[t] = rotate(W[t-16] ^ W[t-14] ^ W[t-8] ^ W[t-3], 1), in the place of W[t-16].
#define NEXT(t, t14, t8, t3) \
	VMOVDQU (WORK_WORDS+32*t)(DI), Y6        \
	VPXOR   (WORK_WORDS+32*t14)(DI), Y6, Y6  \
	VPXOR   (WORK_WORDS+32*t8)(DI), Y6, Y6   \
	VPXOR   (WORK_WORDS+32*t3)(DI), Y6, Y6   \
	VPADDD  Y6, Y6, Y7                       \
	VPSRLD  $31, Y6, Y6                      \
	VPOR    Y7, Y6, Y6                       \
	VMOVDQU Y6, (WORK_WORDS+32*t)(DI)

#define FIVE(t0, t1, t2, t3, t4, f) \
	ROUND(Y0, Y1, Y2, Y3, Y4, t0, f) \
	ROUND(Y4, Y0, Y1, Y2, Y3, t1, f) \
	ROUND(Y3, Y4, Y0, Y1, Y2, t2, f) \
	ROUND(Y2, Y3, Y4, Y0, Y1, t3, f) \
	ROUND(Y1, Y2, Y3, Y4, Y0, t4, f)

// The next 16 words.
#define SCHEDULE \
	NEXT(0, 2, 8, 13)   \
	NEXT(1, 3, 9, 14)   \
	NEXT(2, 4, 10, 15)  \
	NEXT(3, 5, 11, 0)   \
	NEXT(4, 6, 12, 1)   \
	NEXT(5, 7, 13, 2)   \
	NEXT(6, 8, 14, 3)   \
	NEXT(7, 9, 15, 4)   \
	NEXT(8, 10, 0, 5)   \
	NEXT(9, 11, 1, 6)   \
	NEXT(10, 12, 2, 7)  \
	NEXT(11, 13, 3, 8)  \
	NEXT(12, 14, 4, 9)  \
	NEXT(13, 15, 5, 10) \
	NEXT(14, 0, 6, 11)  \
	NEXT(15, 1, 7, 12)

// rounds8 applies the compression function to a block in work and working variables in Y0-Y4, without the addition at its end. Clobbers Y5-Y8 and
// the block.
TEXT rounds8<>(SB), NOSPLIT|NOFRAME, $0
	VPBROADCASTD round8<>+0(SB), Y5
	FIVE(0, 1, 2, 3, 4, CHOOSE)
	FIVE(5, 6, 7, 8, 9, CHOOSE)
	FIVE(10, 11, 12, 13, 14, CHOOSE)
	ROUND(Y0, Y1, Y2, Y3, Y4, 15, CHOOSE)
	SCHEDULE
	ROUND(Y4, Y0, Y1, Y2, Y3, 0, CHOOSE)
	ROUND(Y3, Y4, Y0, Y1, Y2, 1, CHOOSE)
	ROUND(Y2, Y3, Y4, Y0, Y1, 2, CHOOSE)
	ROUND(Y1, Y2, Y3, Y4, Y0, 3, CHOOSE)
	VPBROADCASTD round8<>+4(SB), Y5
	FIVE(4, 5, 6, 7, 8, PARITY)
	FIVE(9, 10, 11, 12, 13, PARITY)
	ROUND(Y0, Y1, Y2, Y3, Y4, 14, PARITY)
	ROUND(Y4, Y0, Y1, Y2, Y3, 15, PARITY)
	SCHEDULE
	ROUND(Y3, Y4, Y0, Y1, Y2, 0, PARITY)
	ROUND(Y2, Y3, Y4, Y0, Y1, 1, PARITY)
	ROUND(Y1, Y2, Y3, Y4, Y0, 2, PARITY)
	FIVE(3, 4, 5, 6, 7, PARITY)
	VPBROADCASTD round8<>+8(SB), Y5
	FIVE(8, 9, 10, 11, 12, MAJORITY)
	ROUND(Y0, Y1, Y2, Y3, Y4, 13, MAJORITY)
	ROUND(Y4, Y0, Y1, Y2, Y3, 14, MAJORITY)
	ROUND(Y3, Y4, Y0, Y1, Y2, 15, MAJORITY)
	SCHEDULE
	ROUND(Y2, Y3, Y4, Y0, Y1, 0, MAJORITY)
	ROUND(Y1, Y2, Y3, Y4, Y0, 1, MAJORITY)
	FIVE(2, 3, 4, 5, 6, MAJORITY)
	FIVE(7, 8, 9, 10, 11, MAJORITY)
	VPBROADCASTD round8<>+12(SB), Y5
	ROUND(Y0, Y1, Y2, Y3, Y4, 12, PARITY)
	ROUND(Y4, Y0, Y1, Y2, Y3, 13, PARITY)
	ROUND(Y3, Y4, Y0, Y1, Y2, 14, PARITY)
	ROUND(Y2, Y3, Y4, Y0, Y1, 15, PARITY)
	SCHEDULE
	ROUND(Y1, Y2, Y3, Y4, Y0, 0, PARITY)
	FIVE(1, 2, 3, 4, 5, PARITY)
	FIVE(6, 7, 8, 9, 10, PARITY)
	FIVE(11, 12, 13, 14, 15, PARITY)
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

// Two rows of two times 128 bits: the first of both, and the second.
#define PAIR(a, b, t) \
	VPERM2I128 $0x31, b, a, t \
	VPERM2I128 $0x20, b, a, a \
	VMOVDQA    t, b

// transpose8 exchanges rows and columns of the 8 by 8 words in Y0-Y7. Clobbers Y8-Y11.
TEXT transpose8<>(SB), NOSPLIT|NOFRAME, $0
	QUAD(Y0, Y1, Y2, Y3, Y8, Y9)
	QUAD(Y4, Y5, Y6, Y7, Y10, Y11)
	PAIR(Y0, Y4, Y8)
	PAIR(Y1, Y5, Y9)
	PAIR(Y2, Y6, Y10)
	PAIR(Y3, Y7, Y11)
	RET

// 8 words of a lane.
#define LOAD(address, lane, from, y) \
	MOVQ    (address+8*lane)(DI), AX \
	VMOVDQU from(AX), y

#define LOADS(address, from) \
	LOAD(address, 0, from, Y0) \
	LOAD(address, 1, from, Y1) \
	LOAD(address, 2, from, Y2) \
	LOAD(address, 3, from, Y3) \
	LOAD(address, 4, from, Y4) \
	LOAD(address, 5, from, Y5) \
	LOAD(address, 6, from, Y6) \
	LOAD(address, 7, from, Y7)

#define SWAP5 \
	VPSHUFB Y15, Y0, Y0 \
	VPSHUFB Y15, Y1, Y1 \
	VPSHUFB Y15, Y2, Y2 \
	VPSHUFB Y15, Y3, Y3 \
	VPSHUFB Y15, Y4, Y4

#define SWAP8 \
	SWAP5               \
	VPSHUFB Y15, Y5, Y5 \
	VPSHUFB Y15, Y6, Y6 \
	VPSHUFB Y15, Y7, Y7

#define STORE5(to) \
	VMOVDQU Y0, (to+0)(DI)  \
	VMOVDQU Y1, (to+32)(DI) \
	VMOVDQU Y2, (to+64)(DI) \
	VMOVDQU Y3, (to+96)(DI) \
	VMOVDQU Y4, (to+128)(DI)

#define STORE8(to) \
	STORE5(to)               \
	VMOVDQU Y5, (to+160)(DI) \
	VMOVDQU Y6, (to+192)(DI) \
	VMOVDQU Y7, (to+224)(DI)

#define LOAD5(from) \
	VMOVDQU (from+0)(DI), Y0  \
	VMOVDQU (from+32)(DI), Y1 \
	VMOVDQU (from+64)(DI), Y2 \
	VMOVDQU (from+96)(DI), Y3 \
	VMOVDQU (from+128)(DI), Y4

#define ADD5(from) \
	VPADDD (from+0)(DI), Y0, Y0  \
	VPADDD (from+32)(DI), Y1, Y1 \
	VPADDD (from+64)(DI), Y2, Y2 \
	VPADDD (from+96)(DI), Y3, Y3 \
	VPADDD (from+128)(DI), Y4, Y4

// A lane's sum, and the end after that of the last job.
#define SUM(x, y) \
	VMOVDQU      x, sumJob_sum(SI)       \
	VEXTRACTI128 $1, y, X8               \
	VMOVD        X8, (sumJob_sum+16)(SI) \
	ADDQ         $sumJob__size, SI       \
	DECQ         CX                      \
	JZ           done

// func sumLanes8(jobs *sumJob, n int, work *laneWork)
TEXT ·sumLanes8(SB), NOSPLIT, $0-24
	MOVQ jobs+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ work+16(FP), DI

	// Each lane's blocks: those that lie whole in the message, and one or two of its tail, which lies in work already.
	MOVQ SI, R8                   // job
	LEAQ WORK_TAILS(DI), R9       // tail of the lane
	XORQ R10, R10                 // lane
	XORQ R13, R13                 // there are whole blocks
lane:
	MOVQ    sumJob_mac(R8), AX
	MOVQ    AX, WORK_STATES(DI)(R10*8)
	MOVQ    sumJob_msg(R8), AX
	MOVQ    (sumJob_msg+8)(R8), BX
	MOVQ    BX, R11
	SHRQ    $6, R11
	MOVL    R11, WORK_WHOLE(DI)(R10*4)
	ORQ     R11, R13
	TESTQ   R11, R11
	CMOVQEQ R9, AX                // what is loaded there does not count
	MOVQ    AX, WORK_NEXT(DI)(R10*8)
	ANDQ    $63, BX
	MOVL    sumJob_extra(R8), AX
	LEAQ    (1+8+63)(BX)(AX*1), BX
	SHRQ    $6, BX
	MOVL    BX, WORK_TAIL(DI)(R10*4)
	ADDQ    $sumJob__size, R8
	ADDQ    $128, R9
	INCQ    R10
	CMPQ    R10, CX
	JB      lane

	// Lanes without a job have no blocks.
	MOVQ sumJob_mac(SI), AX
idle:
	CMPQ R10, $8
	JE   keys
	MOVQ AX, WORK_STATES(DI)(R10*8)
	MOVQ R9, WORK_NEXT(DI)(R10*8)
	MOVL $0, WORK_WHOLE(DI)(R10*4)
	MOVL $0, WORK_TAIL(DI)(R10*4)
	ADDQ $128, R9
	INCQ R10
	JMP  idle

keys:
	// The kept states are ten words, five inner and five outer: the first eight, then the last eight.
	LOADS(WORK_STATES, mac_inner)
	CALL transpose8<>(SB)
	STORE5(WORK_CHAIN)
	VMOVDQU Y5, (WORK_OUTER+0)(DI)
	VMOVDQU Y6, (WORK_OUTER+32)(DI)
	VMOVDQU Y7, (WORK_OUTER+64)(DI)
	LOADS(WORK_STATES, mac_inner+8)
	CALL transpose8<>(SB)
	VMOVDQU        Y6, (WORK_OUTER+96)(DI)
	VMOVDQU        Y7, (WORK_OUTER+128)(DI)
	VBROADCASTI128 swap8<>(SB), Y15

	LEAQ  WORK_WHOLE(DI), R12
	TESTQ R13, R13
	JZ    tails

block:
	LOADS(WORK_NEXT, 0)
	SWAP8
	CALL transpose8<>(SB)
	STORE8(WORK_WORDS)
	LOADS(WORK_NEXT, 32)
	SWAP8
	CALL transpose8<>(SB)
	STORE8(WORK_WORDS+256)
	LOAD5(WORK_CHAIN)
	CALL rounds8<>(SB)

	// Of lanes that have a block.
	VMOVDQU  (R12), Y5            // blocks that each lane has still to do
	VPXOR    Y6, Y6, Y6
	VPCMPGTD Y6, Y5, Y7
	VPAND    Y7, Y0, Y0
	VPAND    Y7, Y1, Y1
	VPAND    Y7, Y2, Y2
	VPAND    Y7, Y3, Y3
	VPAND    Y7, Y4, Y4
	ADD5(WORK_CHAIN)
	STORE5(WORK_CHAIN)
	VPADDD   Y7, Y5, Y5           // -1
	VMOVDQU  Y5, (R12)

	// The lanes that have more go on; the others stay at a block that is theirs to read.
	VPCMPGTD     Y6, Y5, Y7
	VPMOVMSKB    Y7, BX
	VPBROADCASTQ step8<>(SB), Y8
	VPMOVSXDQ    X7, Y9
	VPAND        Y8, Y9, Y9
	VPADDQ       (WORK_NEXT+0)(DI), Y9, Y9
	VMOVDQU      Y9, (WORK_NEXT+0)(DI)
	VEXTRACTI128 $1, Y7, X7
	VPMOVSXDQ    X7, Y9
	VPAND        Y8, Y9, Y9
	VPADDQ       (WORK_NEXT+32)(DI), Y9, Y9
	VMOVDQU      Y9, (WORK_NEXT+32)(DI)
	TESTL        BX, BX
	JNZ          block
	TESTQ        R13, R13
	JZ           outer

tails:
	XORQ R13, R13                 // the last blocks but the outer one
	LEAQ WORK_TAIL(DI), R12
	LEAQ WORK_TAILS(DI), R9
	XORQ R10, R10
tail:
	MOVQ R9, WORK_NEXT(DI)(R10*8)
	ADDQ $128, R9
	INCQ R10
	CMPQ R10, $8
	JB   tail
	JMP  block

outer:
	// The message of the outer hash is what the inner one gave, padded: lanes and words lie right already.
	LOAD5(WORK_CHAIN)
	STORE5(WORK_WORDS)
	VPBROADCASTD outer8<>+0(SB), Y5
	VMOVDQU      Y5, (WORK_WORDS+32*5)(DI)
	VPXOR        Y6, Y6, Y6
	VMOVDQU      Y6, (WORK_WORDS+32*6)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*7)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*8)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*9)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*10)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*11)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*12)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*13)(DI)
	VMOVDQU      Y6, (WORK_WORDS+32*14)(DI)
	VPBROADCASTD outer8<>+4(SB), Y5
	VMOVDQU      Y5, (WORK_WORDS+32*15)(DI)
	LOAD5(WORK_OUTER)
	CALL rounds8<>(SB)
	ADD5(WORK_OUTER)
	SWAP5
	CALL transpose8<>(SB)
	SUM(X0, Y0)
	SUM(X1, Y1)
	SUM(X2, Y2)
	SUM(X3, Y3)
	SUM(X4, Y4)
	SUM(X5, Y5)
	SUM(X6, Y6)
	SUM(X7, Y7)
done:
	VZEROUPPER
	RET
