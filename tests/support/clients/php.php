<?php
// PHP's extension ftp.
[, $action, $source, $target] = $argv + [null, null, '', ''];
if ($action === 'version') { echo 'PHP ', PHP_VERSION, "\n"; exit; }
$said = '';
set_error_handler(function ($level, $words) use (&$said) { $said = $words; return true; });
$connect = getenv('FTP_TLS') ? 'ftp_ssl_connect' : 'ftp_connect';
$client = $connect(getenv('FTP_HOST'), (int) getenv('FTP_PORT'), 30);
$done = $client && ftp_login($client, getenv('FTP_USER'), getenv('FTP_PASSWORD')) && ftp_pasv($client, true);
if ($action === 'fetch') { $done = $done && ftp_get($client, $target, "done/$source", FTP_BINARY); }
elseif ($action === 'send') { $done = $done && ftp_put($client, "queue/$target", $source, FTP_BINARY); }
else { $done = $done && ftp_put($client, "queue/$target", $source, FTP_BINARY, FTP_AUTORESUME); }
echo $said, "\n";
exit($done ? 0 : 1);
