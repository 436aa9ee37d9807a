// Where a server of Node listens, from what is behind the script's name: [port] [certificate key], both PEM. With them it speaks TLS.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";

const [port, certificate, key] = process.argv.slice(2);

export const web = certificate
  ? createSecureServer({ cert: readFileSync(certificate), key: readFileSync(key) })
  : createServer();

export function listen(usual) {
  web.listen(Number(port ?? usual), "127.0.0.1", () => {
    console.log(`listening at 127.0.0.1:${web.address().port}`);
  });
}
