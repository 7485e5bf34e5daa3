"""``snakemake --lint`` without the one check that does not fit: stages run in environments of their own locks, not of conda's."""

import json
import subprocess
import sys

IGNORED = "Specify a conda environment or container for each rule."

done = subprocess.run(["snakemake", "--lint", "json"], capture_output=True, text=True)
try:
    report = json.loads(done.stdout)
except json.JSONDecodeError:
    sys.exit(done.stdout + done.stderr)
found = [
    f"{part.get('rule') or part.get('snakefile')}: {lint['title']} {lint['body']}"
    for part in [*report.get("rules", []), *report.get("snakefiles", [])]
    for lint in part["lints"]
    if lint["title"] != IGNORED
]
print("\n".join(found) or "snakemake --lint: nothing found")
sys.exit(bool(found))
