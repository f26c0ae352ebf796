/**
 * Certificates of an authority made for one test, with openssl.
 *
 * @module
 */
import { join } from "@std/path";
import { must } from "./process.ts";

/** A server's certificate and key, and the authority that clients must trust. */
export interface Certificate {
  readonly caPath: string;
  readonly certPath: string;
  readonly keyPath: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const CONFIG = "[req]\ndistinguished_name = name\n[name]\n";

/** Makes an ECDSA P-256 certificate for names and addresses (`["localhost", "127.0.0.1"]`) in a folder. */
export async function makeCertificate(
  dir: string,
  hosts: readonly string[] = ["localhost", "127.0.0.1"],
): Promise<Certificate> {
  const path = (name: string) => join(dir, name);
  await Deno.writeTextFile(path("openssl.cnf"), CONFIG);
  const make = (name: string, subject: string, extensions: readonly string[], signer: string[]) =>
    must("openssl", [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
      ...["-config", path("openssl.cnf"), "-subj", `/CN=${subject}`],
      ...extensions.flatMap((extension) => ["-addext", extension]),
      ...["-keyout", path(`${name}-key.pem`), "-out", path(`${name}.pem`), ...signer],
    ]);
  const names = hosts.map((host) => `${/^[\d.]+$|:/.test(host) ? "IP" : "DNS"}:${host}`).join(",");
  await make("ca", "Test authority", ["basicConstraints=critical,CA:TRUE"], []);
  await make(
    "cert",
    hosts[0]!,
    ["basicConstraints=CA:FALSE", `subjectAltName=${names}`],
    ["-CA", path("ca.pem"), "-CAkey", path("ca-key.pem")],
  );
  const [ca, cert, key] = await Promise.all(
    ["ca.pem", "cert.pem", "cert-key.pem"].map((name) => Deno.readTextFile(path(name))),
  );
  return {
    caPath: path("ca.pem"),
    certPath: path("cert.pem"),
    keyPath: path("cert-key.pem"),
    ca: ca!,
    cert: cert!,
    key: key!,
  };
}
