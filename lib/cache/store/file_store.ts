/**
 * {@linkcode BlobStore} on files: `blobs/sha256/ab/<hex>`, drafts as `fills/<hex>.<n>.part`, and what was
 * found wrong as `quarantine/sha256-<hex>`.
 *
 * @module
 */
import { dirname, join } from "@std/path";
import { isStorable } from "../../oci/digest.ts";
import { PRIVATE_FILE, PRIVATE_FOLDER } from "../../util/private_files.ts";
import { openPrivateDir } from "./private_dir.ts";
import type { BlobStore, BlobWriter, ByteReader, StoredBlob, StoredEntry } from "./blob_store.ts";

/** A file read at positions; seeks only when the position is not where the last read ended. */
class FileReader implements ByteReader {
  readonly #file: Deno.FsFile;
  #position = 0;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  async read(offset: number, buffer: Uint8Array): Promise<number> {
    if (offset !== this.#position) await this.#file.seek(offset, Deno.SeekMode.Start);
    const n = await this.#file.read(buffer) ?? 0;
    this.#position = offset + n;
    return n;
  }

  close(): void {
    this.#file.close();
  }
}

class StoredFile extends FileReader implements StoredBlob {
  readonly size: number;
  readonly version: string | undefined;

  constructor(file: Deno.FsFile, info: Deno.FileInfo) {
    super(file);
    this.size = info.size;
    this.version = versionOf(info);
  }
}

/** Tells a file from another at the same path; undefined where the system does not. */
function versionOf({ dev, ino }: Deno.FileInfo): string | undefined {
  return ino === null ? undefined : `${dev}:${ino}`;
}

class FileDraft implements BlobWriter {
  readonly #file: Deno.FsFile;
  readonly #path: string;
  readonly #target: string;
  #isOpen = true;

  constructor(file: Deno.FsFile, path: string, target: string) {
    this.#file = file;
    this.#path = path;
    this.#target = target;
  }

  async write(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.byteLength;) {
      done += await this.#file.write(chunk.subarray(done));
    }
  }

  async reader(): Promise<ByteReader> {
    // Somebody may come between the rename and the moment the draft is no longer known as one.
    const file = await ignoreMissing(Deno.open(this.#path, { read: true })) ??
      await Deno.open(this.#target, { read: true });
    return new FileReader(file);
  }

  async commit(): Promise<void> {
    await this.#file.sync();
    this.#close();
    await renameInto(this.#path, this.#target);
  }

  async discard(): Promise<void> {
    this.#close();
    // Best effort: what stays is swept at the next start.
    await Deno.remove(this.#path).catch(() => {});
  }

  #close(): void {
    if (this.#isOpen) this.#file.close();
    this.#isOpen = false;
  }
}

async function ignoreMissing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Renames, making the target's folder when this is the first file in it. */
async function renameInto(from: string, to: string): Promise<void> {
  try {
    await Deno.rename(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    await Deno.mkdir(dirname(to), { recursive: true, mode: PRIVATE_FOLDER });
    await Deno.rename(from, to);
  }
}

/** Opens a file to be written, making its folder when that has been removed. */
async function openNew(path: string): Promise<Deno.FsFile> {
  const options = { write: true, create: true, truncate: true, mode: PRIVATE_FILE };
  const file = await ignoreMissing(Deno.open(path, options));
  if (file) return file;
  await Deno.mkdir(dirname(path), { recursive: true, mode: PRIVATE_FOLDER });
  return await Deno.open(path, options);
}

/** The entries of a folder; none where there is no such folder, or it is something else. */
async function* readFolder(path: string): AsyncIterable<Deno.DirEntry> {
  try {
    yield* Deno.readDir(path);
  } catch (error) {
    const isNone = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory;
    if (!isNone) throw error;
  }
}

/** The files below one folder. */
export class FileStore implements BlobStore {
  readonly #dir: string;
  #drafts = 0;

  /** Makes `dir` and its folders where they are missing; throws what the disk throws. */
  constructor(dir: string) {
    this.#dir = dir;
    openPrivateDir(dir);
    for (const folder of ["blobs", "fills"]) {
      Deno.mkdirSync(join(dir, folder), { recursive: true, mode: PRIVATE_FOLDER });
    }
  }

  /** Only digests that name an algorithm and hex become a path: nothing else can be in one. */
  #path(digest: string): string {
    if (!isStorable(digest)) throw new TypeError(`Not a storable digest: ${digest}`);
    const [algorithm, hex] = digest.split(":") as [string, string];
    return `${this.#dir}/blobs/${algorithm}/${hex.slice(0, 2)}/${hex}`;
  }

  async open(digest: string): Promise<StoredBlob | undefined> {
    const file = await ignoreMissing(Deno.open(this.#path(digest), { read: true }));
    if (!file) return undefined;
    try {
      return new StoredFile(file, await file.stat());
    } catch (error) {
      file.close();
      throw error;
    }
  }

  async begin(digest: string): Promise<BlobWriter> {
    const target = this.#path(digest);
    const path = `${this.#dir}/fills/${digest.split(":")[1]}.${++this.#drafts}.part`;
    const file = await openNew(path);
    return new FileDraft(file, path, target);
  }

  async remove(digest: string): Promise<void> {
    await ignoreMissing(Deno.remove(this.#path(digest)));
  }

  async stat(digest: string): Promise<StoredEntry | undefined> {
    const info = await ignoreMissing(Deno.stat(this.#path(digest)));
    return info && { digest, size: info.size, storedAt: info.mtime?.getTime() ?? 0 };
  }

  async *list(): AsyncIterable<StoredEntry> {
    for await (const algorithm of readFolder(join(this.#dir, "blobs"))) {
      for await (const folder of readFolder(join(this.#dir, "blobs", algorithm.name))) {
        const path = join(this.#dir, "blobs", algorithm.name, folder.name);
        for await (const { name } of readFolder(path)) {
          const digest = `${algorithm.name}:${name}`;
          const entry = isStorable(digest) && await this.stat(digest);
          if (entry) yield entry;
        }
      }
    }
  }

  async quarantine(digest: string, version?: string): Promise<boolean> {
    const aside = join(this.#dir, "quarantine", digest.replace(":", "-"));
    const path = this.#path(digest);
    const info = await ignoreMissing(Deno.stat(path));
    if (!info) return true;
    if (version !== undefined && versionOf(info) !== version) return false;
    await renameInto(path, aside);
    const now = new Date();
    await ignoreMissing(Deno.utime(aside, now, now)); // its age counts from now
    return true;
  }

  async purge(before: number): Promise<number> {
    const folder = join(this.#dir, "quarantine");
    let bytes = 0;
    for await (const { name } of readFolder(folder)) {
      const path = join(folder, name);
      const info = await ignoreMissing(Deno.stat(path));
      if (!info) continue;
      if ((info.mtime?.getTime() ?? 0) < before) {
        await ignoreMissing(Deno.remove(path, { recursive: true })); // what is found may be a folder
      } else bytes += info.size;
    }
    return bytes;
  }

  async sweep(): Promise<void> {
    const fills = join(this.#dir, "fills");
    for await (const { name } of readFolder(fills)) {
      if (name.endsWith(".part")) await ignoreMissing(Deno.remove(join(fills, name)));
    }
  }
}
