// basic-ftp, a library of Node's.
const ftp = require('basic-ftp');
const fs = require('fs');

async function main(action, source, target) {
  const env = process.env;
  if (action === 'version') {
    console.log(`Node ${process.version}, basic-ftp ${require('basic-ftp/package.json').version}`);
    return;
  }
  const client = new ftp.Client(30000);
  await client.access({
    host: env.FTP_HOST, port: Number(env.FTP_PORT), user: env.FTP_USER, password: env.FTP_PASSWORD,
    secure: env.FTP_TLS !== '', secureOptions: { ca: fs.readFileSync(env.FTP_CA), host: env.FTP_HOST },
  });
  if (action === 'fetch') {
    await client.downloadTo(target, `done/${source}`);
  } else if (action === 'send') {
    console.log((await client.uploadFrom(source, `queue/${target}`)).message);
  } else {
    const kept = await client.size(`queue/${target}`);
    console.log((await client.appendFrom(source, `queue/${target}`, { localStart: kept })).message);
  }
  client.close();
}

main(...process.argv.slice(2)).catch((error) => {
  console.log(error.message);
  process.exit(1);
});
