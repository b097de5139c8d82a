# Perl's Net::FTP.
use strict;
use warnings;
use Net::FTP;

my ($action, $source, $target) = @ARGV;
if ($action eq 'version') { print "Perl $^V, Net::FTP $Net::FTP::VERSION\n"; exit }
my %secure = $ENV{FTP_TLS} ? (SSL_ca_file => $ENV{FTP_CA}, SSL_verifycn_name => $ENV{FTP_HOST}) : ();
my $client = Net::FTP->new($ENV{FTP_HOST}, Port => $ENV{FTP_PORT}, Passive => 1, Timeout => 30, %secure) or die "$@\n";
sub check { $_[0] or die $client->code, ' ', $client->message; }
check($client->starttls) if $ENV{FTP_TLS};
check($client->login($ENV{FTP_USER}, $ENV{FTP_PASSWORD}));
check($client->prot('P')) if $ENV{FTP_TLS};
check($client->binary);
if ($action eq 'fetch') { check($client->get("done/$source", $target)) }
else {
    if ($action eq 'continue') {
        my $kept = $client->size("queue/$target");
        open my $file, '<:raw', $source or die;
        seek $file, $kept, 0;
        check($client->restart($kept) || 1);
        my $data = $client->stor("queue/$target") or check(0);
        local $/;
        my $rest = <$file>;
        for (my $at = 0; $at < length $rest; ) { $at += $data->write(substr($rest, $at, 16384), 16384 < length($rest) - $at ? 16384 : length($rest) - $at) }
        check($data->close);
    }
    else { check($client->put($source, "queue/$target")) }
}
print $client->code, ' ', $client->message;
