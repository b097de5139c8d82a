#include <stdio.h>

int main(int argc, char **argv)
{
    printf("built by construir, run by %s\n", argc > 1 ? argv[1] : "nobody");
    return 0;
}
