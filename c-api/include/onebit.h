/* Inference with BitNet b1.58 models in one `.1bit` file, from C99 and C++.
 *
 *     onebit_generator *g;
 *     onebit_failure why;
 *     if (onebit_open(model, model_size, NULL, &g, &why) != ONEBIT_OK) { puts(why.message); return 1; }
 *     onebit_begin_text(g, "Anna was a", 10, 100, NULL);
 *     uint32_t id;
 *     while (onebit_next(g, &id, NULL) == ONEBIT_OK) {
 *         uint8_t bytes[64]; size_t count;
 *         if (onebit_token_bytes(g, id, bytes, sizeof bytes, &count, NULL) == ONEBIT_OK) fwrite(bytes, 1, count, stdout);
 *     }
 *     onebit_free(g);
 *
 * Ownership. The model's bytes stay the caller's: they are neither copied nor written, and must stay where they are, unchanged, until every generator that was
 * opened over them is freed. Flash and a mapped file are fine. Everything else that is passed in is read or written during the call alone. A generator is freed by
 * onebit_free and by nothing else. Any number of generators may be open over the same bytes.
 *
 * Threads. One generator is used by one thread at a time; different ones may be used at the same time. No function keeps state outside of its generator.
 *
 * Pointers. Null and misaligned pointers are refused with ONEBIT_POINTER, but a pointer to other memory than a size tells of cannot be found out.
 * A size of 0 goes with any pointer.
 *
 * Errors. Each function returns a status; `failure`, which may be null, gets the status and a message of one line when it is neither ONEBIT_OK nor ONEBIT_ENDED.
 * After ONEBIT_INTERNAL a generator can be freed and nothing else; after any other status it is as it was, but for an answer that onebit_next was giving: that
 * has ended.
 *
 * Linking, on Linux: cc program.c libonebit_c.a -lpthread -ldl -lm
 */
#ifndef ONEBIT_H
#define ONEBIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; onebit_abi_version() returns that of the library. */
#define ONEBIT_ABI_VERSION 1u

/* What a function returns. */
typedef int32_t onebit_status;
#define ONEBIT_OK 0        /* done */
#define ONEBIT_ENDED 1     /* the answer has ended: there is no further token */
#define ONEBIT_POINTER 2   /* a pointer is null or misaligned */
#define ONEBIT_OPTION 3    /* an option is outside its range */
#define ONEBIT_MODEL 4     /* the bytes are no model that can be run here */
#define ONEBIT_TEXT 5      /* the text is not UTF-8 */
#define ONEBIT_TOKEN 6     /* a token is outside the vocabulary, or no token was given */
#define ONEBIT_ROOM 7      /* the room for the result is too small; count tells what is needed */
#define ONEBIT_MEMORY 8    /* there is too little memory */
#define ONEBIT_LOGITS 9    /* the model computes no numbers: its weights are damaged */
#define ONEBIT_INTERNAL 10 /* an error of the library */

/* Bytes of a message, its zero included. */
#define ONEBIT_MESSAGE_SIZE 256

/* What went wrong: the status once more, and what was expected, what was found and what to do, in UTF-8, cut to its room, with a zero at its end. */
typedef struct onebit_failure {
    int32_t status;
    char message[ONEBIT_MESSAGE_SIZE];
} onebit_failure;

/* How tokens are chosen. */
typedef struct onebit_sampling {
    uint64_t seed;            /* chooses the stream of random numbers */
    float temperature;        /* divides the logits; 0 always takes the most likely token */
    float top_p;              /* the most likely tokens that together hold this much of the probability; 1 for no limit */
    float min_p;              /* tokens at least this fraction as likely as the most likely one; 0 for no limit */
    float repetition_penalty; /* divides positive and multiplies negative logits of tokens already seen; 1 for none */
    uint32_t top_k;           /* so many of the most likely tokens; 0 for no limit */
} onebit_sampling;

/* How keys and values are kept, which is most of the memory: in 4, 2 or about 1 bytes a value. Each gives tokens of its own, the same on every machine. */
#define ONEBIT_KV_F32 0
#define ONEBIT_KV_F16 1
#define ONEBIT_KV_INT8 2

/* What a generator takes; onebit_options_of fills it in for a model. */
typedef struct onebit_options {
    onebit_sampling sampling;
    uint32_t context; /* tokens of prompt and answer, at most what the model was made for */
    uint32_t chunk;   /* tokens of a prompt that are read at once: faster for long prompts, for more memory; the tokens do not depend on it */
    int32_t kv;       /* ONEBIT_KV_F32, ONEBIT_KV_F16 or ONEBIT_KV_INT8 */
    int32_t slides;   /* not 0: a full context lets its older half go; 0: the answer ends there */
} onebit_options;

/* A model and the answer that it is giving. */
typedef struct onebit_generator onebit_generator;

/* The version of the library. */
uint32_t onebit_abi_version(void);

/* A short text for a status, in memory that is never freed. */
const char *onebit_status_text(int32_t status);

/* The options that a model recommends, for its whole context and a cache in f32. Reads its header. */
onebit_status onebit_options_of(const uint8_t *bytes, size_t size, onebit_options *options, onebit_failure *failure);

/* Opens the model in `bytes`, which must lie at a multiple of 4 (better 64: whole cache lines), with `options`, or with those that it recommends for null.
 * `*generator` is null after an error. All memory but that for a prompt's ids is taken here. */
onebit_status onebit_open(const uint8_t *bytes, size_t size, const onebit_options *options, onebit_generator **generator, onebit_failure *failure);

/* Frees a generator; null is nothing. */
void onebit_free(onebit_generator *generator);

/* Chooses tokens otherwise from now on; the random stream starts again. */
onebit_status onebit_set_sampling(onebit_generator *generator, const onebit_sampling *sampling, onebit_failure *failure);

/* The ids of a text as a prompt: with the token before it, if the model's texts begin with one. `*count` is how many there are; where they are more than
 * `capacity`, none is written and the status is ONEBIT_ROOM. */
onebit_status onebit_encode(onebit_generator *generator, const char *text, size_t size, uint32_t *ids, size_t capacity, size_t *count, onebit_failure *failure);

/* Begins an answer of at most `max_tokens` tokens to a text of `size` bytes (without a zero), or to `count` ids. Of a prompt longer than the context the most recent
 * tokens count. The random stream starts again; what was read before and is the same is not read again. */
onebit_status onebit_begin_text(onebit_generator *generator, const char *text, size_t size, size_t max_tokens, onebit_failure *failure);
onebit_status onebit_begin_ids(onebit_generator *generator, const uint32_t *ids, size_t count, size_t max_tokens, onebit_failure *failure);

/* The next token of the answer; ONEBIT_ENDED, and `*id` as it was, where there is none. An end token is the last that is given. */
onebit_status onebit_next(onebit_generator *generator, uint32_t *id, onebit_failure *failure);

/* Why the answer ended: 0 while it goes on, 1 for its length, 2 for an end token, 3 for the end of the context; 0 for null. */
int32_t onebit_ended(const onebit_generator *generator);

/* The bytes of a token, none for a control token; a character may be spread over several tokens. `*count` is how many there are; where they are more than
 * `capacity`, none is written and the status is ONEBIT_ROOM. */
onebit_status onebit_token_bytes(onebit_generator *generator, uint32_t id, uint8_t *bytes, size_t capacity, size_t *count, onebit_failure *failure);

/* Ids of the tokenizer are below this; 0 for null. */
size_t onebit_vocab_size(const onebit_generator *generator);

#ifdef __cplusplus
}
#endif

#endif
