/**
 * One SQLite file that one process owns: opened, locked, and replaced when it is damaged.
 *
 * @module
 */
import {
  DatabaseSync,
  type SQLInputValue,
  type SQLOutputValue,
  type StatementSync,
} from "node:sqlite";
import { createPrivateFile } from "../../util/private_files.ts";

/** Another process has the file open. */
export class IndexLockedError extends Error {
  override readonly name = "IndexLockedError";
}

/** The file is none of this version, or damaged. */
export class IndexCorruptError extends Error {
  override readonly name = "IndexCorruptError";
}

/** Deno's node:sqlite gives no result codes; these are SQLite's own fixed words for them. */
const BUSY = /database is locked/;
const DAMAGED = /file is not a database|malformed|unsupported file format/;

/** An {@linkcode IndexCorruptError} in place of what SQLite throws for a damaged file. */
function asCorrupt(error: unknown): unknown {
  const { message } = error as Error;
  if (!DAMAGED.test(message)) return error;
  return new IndexCorruptError(`Index is damaged: ${message}`, { cause: error });
}

/** Options for {@linkcode SqliteFile}. */
export interface SqliteFileOptions {
  /** What a new file is given. */
  readonly schema: string;
  /** A file of another version is none of ours, unless it can be migrated. At least 1. */
  readonly version: number;
  /** By older version, what makes a file of it one of this version. */
  readonly migrations?: Readonly<Record<number, string>>;
  /** Called when the file turns out to be damaged while it is in use, once until it is replaced. */
  readonly onDamaged?: () => void;
}

/**
 * Pages of 4 KiB. With very many entries every change is on pages of its own, and a checkpoint syncs them all: more
 * of them at once cost less in all, and hold the event loop for longer (16 MiB: up to 120 ms).
 */
const CHECKPOINT = 1_000;
/** The same while work is done in slices: what is next to each other changes, and no slice is to take long. */
const SMALL_CHECKPOINT = 250;

type Row = Record<string, SQLOutputValue>;

/** The file, and its statements. */
export class SqliteFile {
  readonly #path: string;
  readonly #options: SqliteFileOptions;
  readonly #statements = new Map<string, StatementSync>();
  #db!: DatabaseSync;
  #isNew = false;
  #slicing = 0;
  #isDamaged = false;

  /**
   * Opens or creates the file `path`. Throws an {@linkcode IndexLockedError} when another process has it,
   * an {@linkcode IndexCorruptError} when it cannot be read.
   */
  constructor(path: string, options: SqliteFileOptions) {
    this.#path = path;
    this.#options = options;
    this.#open();
  }

  /** Whether the file was made just now. */
  get isNew(): boolean {
    return this.#isNew;
  }

  #open(): void {
    const { schema, version, migrations = {} } = this.#options;
    // SQLite gives its journals the mode of the file.
    if (this.#path !== ":memory:") createPrivateFile(this.#path);
    const db = new DatabaseSync(this.#path);
    try {
      // Exclusive: the lock of this cache directory is the index itself, and it goes with the process.
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA busy_timeout = 0");
      db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8192");
      db.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT}`);
      db.exec("BEGIN EXCLUSIVE");
      const found = Number(db.prepare("PRAGMA user_version").get()!["user_version"]);
      if (found === 0) db.exec(`${schema}; PRAGMA user_version = ${version}`);
      else if (migrations[found] !== undefined) {
        db.exec(`${migrations[found]}; PRAGMA user_version = ${version}`);
      } else if (found !== version) {
        throw new IndexCorruptError(`Index has version ${found}, expected ${version}`);
      }
      db.exec("COMMIT");
      this.#db = db;
      this.#isNew = found === 0;
    } catch (error) {
      db.close();
      if (BUSY.test((error as Error).message)) {
        throw new IndexLockedError(`Another process is using ${this.#path}`);
      }
      throw asCorrupt(error);
    }
  }

  /** The statement `text`, prepared once. For use inside of a {@linkcode SqliteFile.transaction}. */
  prepare(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (!statement) this.#statements.set(text, statement = this.#db.prepare(text));
    return statement;
  }

  /** The first row. */
  get(text: string, ...values: SQLInputValue[]): Row | undefined {
    try {
      return this.prepare(text).get(...values);
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  /** All rows. */
  all(text: string, ...values: SQLInputValue[]): Row[] {
    try {
      return this.prepare(text).all(...values);
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  run(text: string, ...values: SQLInputValue[]): void {
    try {
      this.prepare(text).run(...values);
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  /** Runs `work`, all of it or nothing. */
  transaction(work: () => void): void {
    try {
      this.#db.exec("BEGIN IMMEDIATE");
      try {
        work();
        this.#db.exec("COMMIT");
      } catch (error) {
        this.#rollback();
        throw error;
      }
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  /** Keeps checkpoints small until `work`, which is done in slices, has ended. */
  async inSlices<T>(work: () => Promise<T>): Promise<T> {
    this.#beginSlice();
    try {
      return await work();
    } finally {
      this.#endSlice();
    }
  }

  /** {@linkcode transaction}, as one slice of some work. */
  slice(work: () => void): void {
    this.#beginSlice();
    try {
      this.transaction(work);
    } finally {
      this.#endSlice();
    }
  }

  #beginSlice(): void {
    if (this.#slicing++ === 0) this.#setCheckpoint(SMALL_CHECKPOINT);
  }

  #endSlice(): void {
    if (--this.#slicing === 0) this.#setCheckpoint(CHECKPOINT);
  }

  #setCheckpoint(pages: number): void {
    if (this.#db.isOpen) this.#db.exec(`PRAGMA wal_autocheckpoint = ${pages}`);
  }

  #rollback(): void {
    try {
      this.#db.exec("ROLLBACK");
    } catch {
      // On a full disk SQLite has rolled back by itself: the first error is the one to tell.
    }
  }

  #noticed(cause: unknown): unknown {
    const error = asCorrupt(cause);
    if (error instanceof IndexCorruptError && !this.#isDamaged) {
      this.#isDamaged = true;
      this.#options.onDamaged?.();
    }
    return error;
  }

  /** Sets a damaged file aside as `aside` and goes on with a new one. Throws what the constructor does. */
  replace(aside: string): void {
    this.close();
    setAside(this.#path, aside);
    this.#open();
    this.#isDamaged = false;
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }
}

/** Moves a damaged file away, for who may want to look at it, in place of an earlier one. */
export function setAside(path: string, aside: string): void {
  for (const suffix of ["-wal", "-shm"]) {
    try {
      Deno.removeSync(path + suffix); // they belong to the damaged file
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  Deno.renameSync(path, aside);
}
