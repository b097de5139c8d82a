#!/bin/sh -e
# packages: php-cli
printf '%s\n' '<?php echo json_encode([42]), "\n";' >a.php
php a.php | grep -x '\[42\]'
