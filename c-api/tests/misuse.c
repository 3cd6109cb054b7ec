/* Damaged and truncated models, null pointers, wrong sizes: each is a status with a message, and nothing else happens.
 *
 *     misuse MODEL.1bit
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onebit.h"

#define EXPECT(call, wanted)                                                                        \
    do {                                                                                            \
        onebit_status found = (call);                                                               \
        if (found != (wanted)) {                                                                    \
            fprintf(stderr, "line %d: status %d, not %d: %s\n", __LINE__, found, wanted, why.message); \
            return 1;                                                                               \
        }                                                                                           \
        if (found != ONEBIT_OK && found != ONEBIT_ENDED && (why.status != found || why.message[0] == '\0')) { \
            fprintf(stderr, "line %d: no message for %d\n", __LINE__, found);                       \
            return 1;                                                                               \
        }                                                                                           \
    } while (0)

/* Opens a model and draws two tokens; what comes of it is no matter, only that it comes back. */
static onebit_status run(const uint8_t *model, size_t size, onebit_failure *why)
{
    onebit_generator *generator = NULL;
    onebit_options options;
    uint32_t id;
    onebit_status status = onebit_options_of(model, size, &options, why);
    options.context = 12;
    if (status == ONEBIT_OK) {
        status = onebit_open(model, size, &options, &generator, why);
    }
    if (status == ONEBIT_OK) {
        status = onebit_begin_text(generator, "Anna", 4, 2, why);
    }
    while (status == ONEBIT_OK) {
        status = onebit_next(generator, &id, why);
    }
    onebit_free(generator);
    return status;
}

int main(int count, char **arguments)
{
    static uint8_t model[1 << 22];
    static uint32_t ids[64];
    onebit_failure why = {0};
    onebit_generator *g = NULL;
    onebit_options options;
    size_t size, number, refused = 0, ran = 0;
    uint32_t id;
    uint8_t bytes[64];
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL || (size = fread(model, 1, sizeof model, file)) == 0 || size == sizeof model) {
        fprintf(stderr, "cannot read the model\n");
        return 2;
    }
    fclose(file);

    if (onebit_abi_version() != ONEBIT_ABI_VERSION || strcmp(onebit_status_text(ONEBIT_OK), "done") != 0 || strlen(onebit_status_text(-7)) == 0) {
        return 1;
    }
    EXPECT(run(model, size, &why), ONEBIT_ENDED);

    EXPECT(onebit_options_of(NULL, size, &options, &why), ONEBIT_POINTER);
    EXPECT(onebit_options_of(model, size, NULL, &why), ONEBIT_POINTER);
    EXPECT(onebit_options_of(model + 1, size - 1, &options, &why), ONEBIT_POINTER);
    EXPECT(onebit_options_of(model, 0, &options, &why), ONEBIT_MODEL);
    EXPECT(onebit_options_of(model, (size_t)-1, &options, &why), ONEBIT_POINTER);
    EXPECT(onebit_options_of(model, size, &options, &why), ONEBIT_OK);
    EXPECT(onebit_open(model, size, NULL, NULL, &why), ONEBIT_POINTER);
    options.context = 0;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OPTION);
    options.context = 0xffffffffu;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OPTION);
    options.context = 16;
    options.chunk = 17;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OPTION);
    options.chunk = 1;
    options.kv = 3;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OPTION);
    options.kv = ONEBIT_KV_INT8;
    options.sampling.temperature = -1.0f;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OPTION);
    if (g != NULL) {
        return 1;
    }
    options.sampling.temperature = 0.0f;
    EXPECT(onebit_open(model, size, &options, &g, &why), ONEBIT_OK);

    EXPECT(onebit_next(NULL, &id, &why), ONEBIT_POINTER);
    EXPECT(onebit_next(g, &id, &why), ONEBIT_ENDED);
    EXPECT(onebit_begin_text(g, NULL, 4, 8, &why), ONEBIT_POINTER);
    EXPECT(onebit_begin_text(g, "\xff\xfe", 2, 8, &why), ONEBIT_TEXT);
    EXPECT(onebit_begin_ids(g, NULL, 0, 8, &why), ONEBIT_TOKEN);
    id = (uint32_t)onebit_vocab_size(g);
    EXPECT(onebit_begin_ids(g, &id, 1, 8, &why), ONEBIT_TOKEN);
    EXPECT(onebit_token_bytes(g, 0xffffffffu, bytes, sizeof bytes, &number, &why), ONEBIT_TOKEN);
    EXPECT(onebit_encode(g, "Anna was a", 10, ids, 1, &number, &why), ONEBIT_ROOM);
    EXPECT(onebit_encode(g, "Anna was a", 10, NULL, 64, &number, &why), ONEBIT_POINTER);
    EXPECT(onebit_encode(g, "Anna was a", 10, ids, 64, NULL, &why), ONEBIT_POINTER);
    EXPECT(onebit_encode(g, "Anna was a", 10, ids, 64, &number, &why), ONEBIT_OK);
    if (number < 2 || number > 10) {
        return 1;
    }
    EXPECT(onebit_set_sampling(g, NULL, &why), ONEBIT_POINTER);
    options.sampling.top_p = 2.0f;
    EXPECT(onebit_set_sampling(g, &options.sampling, &why), ONEBIT_OPTION);
    /* Text and ids give the same answer. */
    {
        uint32_t first[6];
        size_t i;
        EXPECT(onebit_begin_text(g, "Anna was a", 10, 6, &why), ONEBIT_OK);
        for (i = 0; i < 6; i++) {
            EXPECT(onebit_next(g, &first[i], &why), ONEBIT_OK);
        }
        EXPECT(onebit_next(g, NULL, &why), ONEBIT_POINTER);
        EXPECT(onebit_next(g, &id, &why), ONEBIT_ENDED);
        EXPECT(onebit_begin_ids(g, ids, number, 6, NULL), ONEBIT_OK);
        for (i = 0; i < 6; i++) {
            EXPECT(onebit_next(g, &id, &why), ONEBIT_OK);
            if (id != first[i] || onebit_ended(g) != (i == 5 ? 1 : 0)) {
                return 1;
            }
        }
    }
    onebit_free(g);
    onebit_free(NULL);

    for (number = 0; number < size; number += number < 8192 ? 61 : 8191) {
        EXPECT(run(model, number, &why), ONEBIT_MODEL);
    }
    for (number = 0; number < size; number += number < 8192 ? 7 : 1999) {
        uint8_t before = model[number];
        onebit_status status;
        model[number] = (uint8_t)(before ^ (number % 2 ? 0x80 : 0x11));
        status = run(model, size, &why);
        model[number] = before;
        if (status == ONEBIT_INTERNAL || status == ONEBIT_POINTER) {
            fprintf(stderr, "byte %zu: %s\n", number, why.message);
            return 1;
        }
        refused += status != ONEBIT_ENDED;
        ran += status == ONEBIT_ENDED;
    }
    EXPECT(run(model, size, &why), ONEBIT_ENDED);
    printf("%zu damaged models refused, %zu ran\n", refused, ran);
    return refused < 100 || ran < 20;
}
