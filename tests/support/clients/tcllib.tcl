# tcllib's package ftp.
package require ftp
lassign $argv action source target
if {$action eq "version"} {
    puts "Tcl [info patchlevel], ftp [package require ftp]"
    exit
}
namespace eval ftp { variable VERBOSE 1 }
proc ftp::DisplayMsg {s msg {state ""}} { puts $msg }
set client [ftp::Open $env(FTP_HOST) $env(FTP_USER) $env(FTP_PASSWORD) -port $env(FTP_PORT) -mode passive -timeout 30]
ftp::Type $client binary
switch $action {
    fetch { set done [ftp::Get $client done/$source $target] }
    send { set done [ftp::Put $client $source queue/$target] }
    continue {
        set kept [ftp::FileSize $client queue/$target]
        set file [open $source rb]
        seek $file $kept
        set done [ftp::Append $client -channel $file queue/$target]
    }
}
ftp::Close $client
exit [expr {!$done}]
