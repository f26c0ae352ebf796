/**
 * The upstream registry of all servers: files behind nginx, so that it is never what is waited for.
 *
 * @module
 */
import { join } from "@std/path";
import { CHUNK, randomBytes } from "../tests/support/content.ts";
import {
  type Content,
  contentOf,
  generated,
  type Image,
  makeImage,
} from "../tests/support/image.ts";
import { startNginx } from "./nginx.ts";
import { freePort } from "../tests/support/temp.ts";

/** The repository that everything is in. */
export const REPOSITORY = "bench/app";

/** A running upstream. */
export interface Upstream {
  readonly url: string;
  /** The same at 50 MB/s per connection. */
  readonly slowUrl: string;
  /** Where its files are: the root of a static server of the same. */
  readonly root: string;
  /** A manifest of some kilobytes, tagged `latest`. */
  readonly image: Image;
  /** Small blobs, 1 to 32 KiB. */
  readonly small: readonly Content[];
  /** A blob of 90 MB that is fetched again and again. */
  readonly large: Content;
  /** Another one of 90 MB that nobody has fetched yet. */
  fresh(): Promise<Content>;
  /** A blob of that many bytes. */
  add(content: Content): Promise<void>;
  /** How many GETs of that blob came, in full or in part. */
  gets(digest: string): Promise<number>;
  stop(): Promise<void>;
}

/** Ninety million bytes and a few: the size of a layer with a language's runtime in it. */
export const LARGE = 90 * 2 ** 20;
const SLOW = "50m";

/** The path of a blob at every server. */
export function blobPath(digest: string): string {
  return `/v2/${REPOSITORY}/blobs/${digest}`;
}

/** The path of a manifest at every server. */
export function manifestPath(reference: string): string {
  return `/v2/${REPOSITORY}/manifests/${reference}`;
}

/** Starts it with its files below `dir`. */
export async function startUpstream(dir: string): Promise<Upstream> {
  const root = join(dir, "www");
  const folder = join(root, "v2", REPOSITORY);
  await Deno.mkdir(join(folder, "manifests"), { recursive: true });
  await Deno.mkdir(join(folder, "blobs"), { recursive: true });

  async function add(content: Content): Promise<void> {
    const file = await Deno.create(join(folder, "blobs", content.digest));
    for (let at = 0; at < content.size; at += 8 * CHUNK) {
      const bytes = content.read(at, Math.min(content.size, at + 8 * CHUNK));
      for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
    }
    file.close();
  }

  const sizes = Array.from({ length: 64 }, (_, i) => 1024 + Math.round(31 * 1024 * i / 63));
  const small = sizes.map((size, i) => contentOf(randomBytes(size, 5000 + i)));
  const image = makeImage({ layers: Array.from({ length: 9 }, (_, i) => 1000 + i) });
  for (const name of ["latest", image.digest]) {
    await Deno.writeFile(join(folder, "manifests", name), image.manifest);
  }
  const large = generated({ size: LARGE, seed: 1 });
  for (const content of [...image.blobs, ...small, large]) await add(content);

  const [port, slowPort] = [freePort(), freePort()];
  const accessLog = join(dir, "upstream.log");
  // Not beside "access_log off": that would cancel it.
  const locations = `
    access_log ${accessLog} asked;
    root ${root};
    add_header Docker-Distribution-Api-Version registry/2.0 always;
    location = /v2/ { default_type application/json; return 200 "{}"; }
    location ~ /manifests/ {
      types {}
      default_type ${image.mediaType};
      add_header Docker-Content-Digest $manifest_digest;
      add_header Docker-Distribution-Api-Version registry/2.0;
    }
    location ~ /blobs/ { types {} default_type application/octet-stream; }`;
  const program = await startNginx(
    join(dir, "upstream"),
    `  log_format asked '$request_method $uri $status';
  map $uri $manifest_digest { default ${image.digest}; }
  server { listen 127.0.0.1:${port}; ${locations} }
  server { listen 127.0.0.1:${slowPort}; limit_rate ${SLOW}; ${locations} }`,
  );
  const url = `http://127.0.0.1:${port}`;
  await answers(`${url}/v2/`);
  let seed = 1000;
  return {
    url,
    slowUrl: `http://127.0.0.1:${slowPort}`,
    root,
    image,
    small,
    large,
    async fresh() {
      const content = generated({ size: LARGE, seed: seed++ });
      await add(content);
      return content;
    },
    add,
    async gets(digest) {
      const lines = (await Deno.readTextFile(accessLog)).split("\n");
      return lines.filter((line) => line.startsWith(`GET ${blobPath(digest)} 20`)).length;
    },
    stop: () => program.stop(),
  };
}

/** Waits until something at `url` answers, 20 s at most. */
export async function answers(url: string): Promise<void> {
  for (const until = performance.now() + 20_000;;) {
    try {
      const response = await fetch(url, { redirect: "manual" });
      await response.body?.cancel();
      return;
    } catch (error) {
      if (performance.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
