/**
 * Connections with TLS for tests, to a server with a certificate of a test's own.
 *
 * @module
 */
import { type Certificate, makeCertificate } from "./certificate.ts";
import { tempDir } from "./temp.ts";

let made: Promise<Certificate> | undefined;

/** One certificate for localhost and 127.0.0.1 for all tests of a file: making it takes a while. */
export function testCertificate(): Promise<Certificate> {
  return made ??= make();
}

async function make(): Promise<Certificate> {
  await using dir = await tempDir();
  return await makeCertificate(dir.path);
}

/** A connection whose handshake has been made, for `protocol` only. Rejects where that is refused. */
export async function connectTls(
  port: number,
  { protocol = "http/1.1" }: { protocol?: "h2" | "http/1.1" } = {},
): Promise<Deno.TlsConn> {
  const { ca } = await testCertificate();
  const conn = await Deno.connectTls({
    hostname: "localhost",
    port,
    caCerts: [ca],
    alpnProtocols: [protocol],
  });
  const { alpnProtocol } = await conn.handshake();
  if (alpnProtocol !== protocol) throw new Error(`${alpnProtocol} was agreed on`);
  return conn;
}
