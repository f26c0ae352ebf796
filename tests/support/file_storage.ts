/**
 * A storage server over the files of a docker-registry, which redirects blobs to it.
 *
 * @module
 */
import { join } from "@std/path";
import type { Content } from "./content.ts";
import { extend, type HttpServer, startHttpServer } from "./http_server.ts";
import { serveContent } from "./serve_content.ts";

/** One request that storage saw. */
export interface FileStorageEntry {
  readonly method: string;
  readonly target: string;
  readonly headers: Headers;
  readonly status: number;
}

/** A running storage server; it refuses Authorization with 400. */
export interface FileStorage extends HttpServer {
  readonly log: FileStorageEntry[];
}

/** Serves the files below a folder. */
export async function startFileStorage(root: string, hostname?: string): Promise<FileStorage> {
  const log: FileStorageEntry[] = [];
  const server = await startHttpServer((request) => {
    const { method, target, headers, url } = request;
    const reply = headers.has("authorization")
      ? { status: 400, headers: [], body: "Only one auth mechanism allowed" }
      : serveFile();
    log.push({ method, target, headers, status: reply.status });
    return reply;

    function serveFile() {
      try {
        const content = fileContent(join(root, decodeURIComponent(url.pathname)));
        return serveContent(request, content, {
          headers: [["content-type", "application/octet-stream"]],
          etag: `"${content.size}"`,
        });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
        return { status: 404, headers: [], body: "NoSuchKey" };
      }
    }
  }, { hostname });
  return extend(server, { log });
}

function fileContent(path: string): Content {
  const { size } = Deno.statSync(path);
  return {
    mediaType: "application/octet-stream",
    digest: "",
    size,
    read(start, end) {
      using file = Deno.openSync(path);
      file.seekSync(start, Deno.SeekMode.Start);
      const out = new Uint8Array(Math.min(end, size) - start);
      for (let at = 0; at < out.length;) at += file.readSync(out.subarray(at)) ?? out.length;
      return out;
    },
  };
}
