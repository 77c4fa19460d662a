// Has schemas/asyncapi.yaml judged by AsyncAPI's own parser, which must not even
// have advice, and must find a message for every schema of an event.
const fs = require("fs");
const path = require("path");
const { Parser, fromFile } = require("@asyncapi/parser");

const schemas = path.join(__dirname, "..", "..", "schemas");

async function main() {
  const { document, diagnostics } = await fromFile(new Parser(), path.join(schemas, "asyncapi.yaml")).parse();
  for (const d of diagnostics) {
    console.error(`asyncapi.yaml: /${d.path.join("/")}: ${d.message} (${d.code})`);
  }
  if (!document || diagnostics.length > 0) {
    throw new Error("asyncapi.yaml is not as AsyncAPI wants it");
  }
  const described = document.allMessages().all().map((m) => m.name() + ".json").sort();
  const published = fs.readdirSync(path.join(schemas, "events")).sort();
  if (described.join() !== published.join()) {
    throw new Error(`asyncapi.yaml describes ${described}, there are ${published}`);
  }
  for (const m of document.allMessages()) {
    if (m.payload().json("title") !== m.name() || !m.headers().json("properties").ce_id) {
      throw new Error(`${m.name()} has no payload of its own or no CloudEvents headers`);
    }
  }
  console.log(`asyncapi: ${described.length} messages described and found right`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
