/* Generates the cases of a golden file and compares every token.
 *
 *     golden MODEL.1bit golden.txt
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onebit.h"

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    long length;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        bytes = malloc((size_t)length + 1);
        if (bytes != NULL && fread(bytes, 1, (size_t)length, file) == (size_t)length) {
            bytes[length] = '\0';
            *size = (size_t)length;
        } else {
            free(bytes);
            bytes = NULL;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return bytes;
}

static onebit_options options;
static uint32_t max_tokens;
static char prompt[512];
static char name[128];

/* Takes a line that sets something. */
static void setting(char *line)
{
    char kv[16];
    if (strncmp(line, "prompt ", 7) == 0) {
        snprintf(prompt, sizeof prompt, "%s", line + 7);
    } else if (strncmp(line, "case ", 5) == 0) {
        snprintf(name, sizeof name, "%s", line + 5);
    } else if (sscanf(line, "kv %15s", kv) == 1) {
        options.kv = strcmp(kv, "f32") == 0 ? ONEBIT_KV_F32 : strcmp(kv, "f16") == 0 ? ONEBIT_KV_F16 : ONEBIT_KV_INT8;
    } else {
        sscanf(line, "temperature %f", &options.sampling.temperature);
        sscanf(line, "top_k %" SCNu32, &options.sampling.top_k);
        sscanf(line, "top_p %f", &options.sampling.top_p);
        sscanf(line, "min_p %f", &options.sampling.min_p);
        sscanf(line, "repetition_penalty %f", &options.sampling.repetition_penalty);
        sscanf(line, "seed %" SCNu64, &options.sampling.seed);
        sscanf(line, "context %" SCNu32, &options.context);
        sscanf(line, "max_tokens %" SCNu32, &max_tokens);
    }
}

/* Generates, and compares with the numbers in `ids`; 0 if all are the same. */
static int check(const uint8_t *model, size_t size, char *ids)
{
    onebit_generator *generator;
    onebit_failure why;
    uint32_t id;
    size_t tokens = 0, text = 0;
    if (onebit_open(model, size, &options, &generator, &why) != ONEBIT_OK ||
        onebit_begin_text(generator, prompt, strlen(prompt), max_tokens, &why) != ONEBIT_OK) {
        fprintf(stderr, "%s: %s\n", name, why.message);
        return 1;
    }
    for (char *word = strtok(ids, " "); word != NULL; word = strtok(NULL, " "), tokens++) {
        uint8_t bytes[256];
        size_t count;
        unsigned long expected = strtoul(word, NULL, 10);
        if (onebit_next(generator, &id, &why) != ONEBIT_OK || id != expected ||
            onebit_token_bytes(generator, id, bytes, sizeof bytes, &count, &why) != ONEBIT_OK) {
            fprintf(stderr, "%s: token %zu is not %lu\n", name, tokens, expected);
            return 1;
        }
        text += count;
    }
    if (onebit_next(generator, &id, &why) != ONEBIT_ENDED || onebit_ended(generator) == 0) {
        fprintf(stderr, "%s: a token too many\n", name);
        return 1;
    }
    onebit_free(generator);
    printf("%s: %zu tokens, %zu bytes of text\n", name, tokens, text);
    return 0;
}

int main(int count, char **arguments)
{
    size_t size, golden_size;
    char *model, *golden, *line, *next;
    int cases = 0, failed = 0;
    if (count != 3 || (model = read_file(arguments[1], &size)) == NULL || (golden = read_file(arguments[2], &golden_size)) == NULL) {
        fprintf(stderr, "cannot read the model or the golden file\n");
        return 2;
    }
    options.chunk = 1;
    for (line = golden; line != NULL && *line != '\0'; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        if (strncmp(line, "ids ", 4) == 0) {
            cases++;
            failed += check((const uint8_t *)model, size, line + 4);
        } else if (*line != '#') {
            setting(line);
        }
    }
    free(model);
    free(golden);
    printf("%d cases, %d failed\n", cases, failed);
    return failed != 0 || cases == 0;
}
