/* greet: says hello to every name on its input.
 *
 * A function reads its input on stdin, writes its output on stdout and logs on stderr; what jobs.yaml
 * has under env_vars is its environment. It can reach nothing else: no file, no network.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    const char *greeting = getenv("GREETING");
    char name[256];
    int count = 0;

    while (fgets(name, sizeof name, stdin)) {
        name[strcspn(name, "\r\n")] = '\0';
        if (name[0] == '\0') continue;
        printf("%s, %s!\n", greeting ? greeting : "Hello", name);
        count++;
    }
    fprintf(stderr, "greeted %d\n", count);
    return count > 0 ? 0 : 1; /* any status but 0 is a failed run */
}
