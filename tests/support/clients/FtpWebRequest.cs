// System.Net.FtpWebRequest, as Mono has it and .NET had.
using System;
using System.IO;
using System.Net;

static class Program
{
    static FtpWebRequest Ask(string path, string method)
    {
        var address = "ftp://" + Get("HOST") + ":" + Get("PORT") + "/" + path;
        var request = (FtpWebRequest) WebRequest.Create(address);
        request.Method = method;
        request.Credentials = new NetworkCredential(Get("USER"), Get("PASSWORD"));
        request.EnableSsl = Get("TLS") != "";
        request.KeepAlive = false;
        request.Proxy = null;
        return request;
    }

    static string Get(string name)
    {
        return Environment.GetEnvironmentVariable("FTP_" + name);
    }

    static void Fetch(string source, string target)
    {
        using (var answer = Ask("done/" + source, WebRequestMethods.Ftp.DownloadFile).GetResponse())
        using (var file = File.Create(target))
            answer.GetResponseStream().CopyTo(file);
    }

    static void Send(string source, string target, bool goesOn)
    {
        var content = File.ReadAllBytes(source);
        long kept = 0;
        if (goesOn)
            using (var answer = Ask("queue/" + target, WebRequestMethods.Ftp.GetFileSize).GetResponse())
                kept = answer.ContentLength;
        var request = Ask("queue/" + target, goesOn ? WebRequestMethods.Ftp.AppendFile : WebRequestMethods.Ftp.UploadFile);
        using (var stream = request.GetRequestStream())
            stream.Write(content, (int) kept, content.Length - (int) kept);
        using (var answer = (FtpWebResponse) request.GetResponse())
            Console.WriteLine(answer.StatusDescription);
    }

    static int Main(string[] said)
    {
        // The certificate is the test's own.
        ServicePointManager.ServerCertificateValidationCallback = (sender, certificate, chain, errors) => true;
        try
        {
            if (said[0] == "version")
                Console.WriteLine("Mono " + Type.GetType("Mono.Runtime").GetMethod("GetDisplayName",
                    System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static).Invoke(null, null).ToString().Split(' ')[0]);
            else if (said[0] == "fetch")
                Fetch(said[1], said[2]);
            else
                Send(said[1], said[2], said[0] == "continue");
            return 0;
        }
        catch (WebException error)
        {
            var answer = error.Response as FtpWebResponse;
            Console.WriteLine(answer == null ? error.ToString() : answer.StatusDescription);
            return 1;
        }
    }
}
