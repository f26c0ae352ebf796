/**
 * Debian's docker-registry as a real upstream, with its storage redirect when asked for.
 *
 * @module
 */
import { join } from "@std/path";
import { makeCertificate } from "./certificate.ts";
import { type FileStorage, startFileStorage } from "./file_storage.ts";
import { answering, background } from "./process.ts";
import { type PushAuth, pushImage } from "./push.ts";
import { which } from "./requirements.ts";
import type { Manifest } from "./image.ts";
import { freePort, removeDir } from "./temp.ts";
import {
  ADMIN,
  startTokenServer,
  type TokenServer,
  type TokenServerOptions,
} from "./token_server.ts";

export { ADMIN } from "./token_server.ts";

/** One line of the registry's access log. */
export interface AccessEntry {
  readonly method: string;
  readonly target: string;
  readonly status: number;
}

/** A running docker-registry. */
export interface Registry {
  /** `http://127.0.0.1:PORT`, or https. */
  readonly url: string;
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly port: number;
  /** The same by name, which its token server shares: for `UPSTREAM_…`, with `ALLOW_PRIVATE_NETWORKS=true`. */
  readonly upstreamUrl: string;
  /** With `auth: "token"`. */
  readonly tokens?: TokenServer;
  /** With `redirect`. */
  readonly storage?: FileStorage;
  /** Who may push: the admin with token auth, the user it made itself with Basic auth. */
  readonly account?: PushAuth;
  /** With `tls`: the file of the authority to trust. */
  readonly caPath?: string;
  /** Pushes as the account, over http only. */
  push(repository: string, tag: string | undefined, image: Manifest): Promise<void>;
  /** What was asked of it, oldest first. */
  requests(): AccessEntry[];
  /** How often that was asked and answered below 400. */
  count(method: string, target: string | RegExp): number;
  /**
   * An outage, of the token server and the storage too; afterwards they are back with the same content on the same
   * ports.
   */
  down(): Promise<void>;
  up(): Promise<void>;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode startRegistry}. */
export interface RegistryOptions {
  /** `basic`: htpasswd with one user, see `account`. @default {"none"} */
  readonly auth?: "none" | "token" | "basic";
  readonly users?: TokenServerOptions["users"];
  readonly private?: TokenServerOptions["private"];
  readonly tokenLife?: number;
  /** https with a self-signed certificate. */
  readonly tls?: boolean;
  /** Blobs are redirected to a storage server on this address (127.0.0.1). */
  readonly redirect?: boolean | { readonly hostname: string };
  readonly port?: number;
}

/** Starts a registry that holds nothing yet. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const { auth = "none", redirect, tls = false } = options;
  const dir = await Deno.makeTempDir({ prefix: "proxy-registry-" });
  const port = options.port ?? freePort();
  const data = join(dir, "data");
  const certificate = auth === "token" || tls ? await makeCertificate(dir) : undefined;
  const tokens = auth === "token"
    ? await startTokenServer({ ...options, life: options.tokenLife, certificate: certificate! })
    : undefined;
  const storage = redirect
    ? await startFileStorage(data, typeof redirect === "object" ? redirect.hostname : undefined)
    : undefined;
  const config = join(dir, "config.json");
  await Deno.writeTextFile(
    config,
    JSON.stringify({
      version: 0.1,
      log: { level: "info" },
      storage: {
        filesystem: { rootdirectory: data },
        delete: { enabled: true },
        maintenance: { uploadpurging: { enabled: false } },
      },
      http: {
        addr: `127.0.0.1:${port}`,
        secret: "not-a-secret",
        ...tls && { tls: { certificate: certificate!.certPath, key: certificate!.keyPath } },
      },
      ...tokens && {
        auth: {
          token: {
            realm: tokens.realm,
            service: tokens.service,
            issuer: tokens.issuer,
            rootcertbundle: certificate!.caPath,
          },
        },
      },
      ...auth === "basic" && {
        auth: { htpasswd: { realm: "test", path: join(dir, "htpasswd") } },
      },
      ...storage && {
        middleware: { storage: [{ name: "redirect", options: { baseurl: storage.url } }] },
      },
    }),
  );

  const url = `${tls ? "https" : "http"}://127.0.0.1:${port}`;
  const earlier: string[] = [];
  let process = await spawn();

  async function spawn() {
    const started = background(which("docker-registry") ?? "docker-registry", {
      args: ["serve", config],
      env: { OTEL_TRACES_EXPORTER: "none" },
    });
    try {
      if (tls) await started.line(/listening on/);
      else await answering(`${url}/v2/`, started);
    } catch (error) {
      await started.stop("SIGKILL");
      throw error;
    }
    return started;
  }

  async function down() {
    await process.stop("SIGKILL");
    earlier.push(...process.lines.splice(0));
    await tokens?.down();
    await storage?.down();
  }

  async function stop() {
    await down();
    await tokens?.close();
    await storage?.close();
    await removeDir(dir);
  }

  const account = tokens ? ADMIN : auth === "basic" ? await madeAccount(process) : undefined;
  const requests = () => [...earlier, ...process.lines].flatMap(parseAccess);
  return {
    url,
    host: `127.0.0.1:${port}`,
    port,
    upstreamUrl: `${tls ? "https" : "http"}://localhost:${port}`,
    tokens,
    storage,
    account,
    caPath: tls ? certificate!.caPath : undefined,
    push: (repository, tag, image) => pushImage(url, { repository, tag, image, auth: account }),
    requests,
    count: (method, target) =>
      requests().filter((entry) =>
        entry.method === method && entry.status < 400 &&
        (typeof target === "string" ? entry.target === target : target.test(entry.target))
      ).length,
    down,
    async up() {
      await tokens?.up();
      await storage?.up();
      if (!process.running()) process = await spawn();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function parseAccess(line: string): AccessEntry[] {
  const match = /^\S+ - - \[[^\]]+\] "(\S+) (\S+) HTTP\/[\d.]+" (\d+) /.exec(line);
  return match ? [{ method: match[1]!, target: match[2]!, status: Number(match[3]) }] : [];
}

/** Without a htpasswd file the registry makes a user and tells the password in its log. */
async function madeAccount(process: { line(pattern: RegExp): Promise<string> }): Promise<PushAuth> {
  const line = await process.line(/provisioning with default user/);
  const field = (name: string) => new RegExp(`${name}="?([^"\\s]+)`).exec(line)?.[1];
  const username = field("user") ?? "docker";
  const password = field("password");
  if (!password) throw new Error(`No password in the registry's log: ${line}`);
  return { username, password };
}
