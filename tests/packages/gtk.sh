#!/bin/sh -e
# packages: libgtk-3-dev gcc pkg-config
printf '#include <gtk/gtk.h>\nint main(void) { g_print("%%d\\n", gtk_get_major_version()); }\n' >a.c
# shellcheck disable=SC2046 # words
gcc a.c -o a $(pkg-config --cflags --libs gtk+-3.0) && ./a | grep -x 3
