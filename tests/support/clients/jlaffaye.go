// jlaffaye/ftp, a library of Go.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"github.com/jlaffaye/ftp"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	if os.Args[1] == "version" {
		library, _ := exec.Command("dpkg-query", "-W", "-f", "${Version}", "golang-github-jlaffaye-ftp-dev").Output()
		fmt.Printf("%s, jlaffaye/ftp %s\n", runtime.Version(), library)
		return
	}
	action, source, target := os.Args[1], os.Args[2], os.Args[3]
	options := []ftp.DialOption{}
	if os.Getenv("FTP_TLS") != "" {
		trusted := x509.NewCertPool()
		certificate, err := os.ReadFile(os.Getenv("FTP_CA"))
		check(err)
		trusted.AppendCertsFromPEM(certificate)
		options = append(options, ftp.DialWithExplicitTLS(&tls.Config{
			RootCAs: trusted, ServerName: os.Getenv("FTP_HOST"), ClientSessionCache: tls.NewLRUClientSessionCache(8)}))
	}
	client, err := ftp.Dial(os.Getenv("FTP_HOST")+":"+os.Getenv("FTP_PORT"), options...)
	check(err)
	check(client.Login(os.Getenv("FTP_USER"), os.Getenv("FTP_PASSWORD")))
	if action == "fetch" {
		answer, err := client.Retr("done/" + source)
		check(err)
		content, err := io.ReadAll(answer)
		check(err)
		check(answer.Close())
		check(os.WriteFile(target, content, 0o644))
	} else {
		file, err := os.Open(source)
		check(err)
		var kept int64
		if action == "continue" {
			kept, err = client.FileSize("queue/" + target)
			check(err)
			_, err = file.Seek(kept, 0)
			check(err)
		}
		check(client.StorFrom("queue/"+target, file, uint64(kept)))
	}
	check(client.Quit())
}
