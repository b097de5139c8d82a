// Apache Commons Net, a library of Java; and Java's own URL, which knows addresses that begin with ftp.
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.TrustManagerFactory;
import org.apache.commons.net.ftp.FTP;
import org.apache.commons.net.ftp.FTPClient;
import org.apache.commons.net.ftp.FTPReply;
import org.apache.commons.net.ftp.FTPSClient;

public class CommonsNet {
    static FTPSClient secure() throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        try (InputStream file = Files.newInputStream(Path.of(System.getenv("FTP_CA")))) {
            trusted.setCertificateEntry("it", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(trusted);
        FTPSClient client = new FTPSClient(false);
        client.setTrustManager(factory.getTrustManagers()[0]);
        return client;
    }

    static void byCommonsNet(String action, String source, String target) throws Exception {
        boolean isSecure = !System.getenv("FTP_TLS").isEmpty();
        FTPClient client = isSecure ? secure() : new FTPClient();
        client.connect(System.getenv("FTP_HOST"), Integer.parseInt(System.getenv("FTP_PORT")));
        boolean done = client.login(System.getenv("FTP_USER"), System.getenv("FTP_PASSWORD"));
        if (isSecure) {
            ((FTPSClient) client).execPBSZ(0);
            ((FTPSClient) client).execPROT("P");
        }
        client.enterLocalPassiveMode();
        client.setFileType(FTP.BINARY_FILE_TYPE);
        if (action.equals("fetch")) {
            try (OutputStream file = Files.newOutputStream(Path.of(target))) {
                done = done && client.retrieveFile("done/" + source, file);
            }
        } else {
            try (InputStream file = Files.newInputStream(Path.of(source))) {
                if (action.equals("continue")) {
                    long kept = Long.parseLong(client.getSize("queue/" + target));
                    file.skipNBytes(kept);
                    client.setRestartOffset(kept);
                }
                done = done && client.storeFile("queue/" + target, file);
            }
        }
        System.out.println(client.getReplyString());
        client.disconnect();
        System.exit(done ? 0 : 1);
    }

    static void byUrl(String action, String source, String target) throws Exception {
        String place = "ftp://" + System.getenv("FTP_USER") + ":" + System.getenv("FTP_PASSWORD") + "@"
            + System.getenv("FTP_HOST") + ":" + System.getenv("FTP_PORT");
        if (action.equals("fetch")) {
            try (InputStream answer = new URL(place + "/done/" + source).openStream()) {
                Files.write(Path.of(target), answer.readAllBytes());
            }
        } else {
            URLConnection connection = new URL(place + "/queue/" + target + ";type=i").openConnection();
            try (OutputStream file = connection.getOutputStream()) {
                Files.copy(Path.of(source), file);
            }
        }
    }

    public static void main(String[] said) throws Exception {
        if (said[1].equals("version")) {
            String version = "Java " + System.getProperty("java.version");
            String library = FTPClient.class.getPackage().getImplementationVersion();
            System.out.println(said[0].equals("url") ? version : version + ", Commons Net " + library);
        } else if (said[0].equals("url")) {
            byUrl(said[1], said[2], said[3]);
        } else {
            byCommonsNet(said[1], said[2], said[3]);
        }
    }
}
