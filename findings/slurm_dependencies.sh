#!/usr/bin/env bash
# slurmpy gives sbatch one --dependency for each job to wait for, and sbatch keeps the last (seen with SLURM 22.05.8): what sums up
# five seeds starts when the last of them has ended well, whatever became of the others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check slurmpy==0.0.8
cd "$folder"
# Stands for sbatch: notes what it is given, and answers as sbatch does.
cat > bin/sbatch <<'BASH'
#!/usr/bin/env bash
printf '%s\n' "$*" >> submissions
echo "Submitted batch job $((100 + $(wc -l < submissions)))"
BASH
chmod +x bin/sbatch
PATH="$folder/bin:$PATH" bin/python - <<'PYTHON'
import pathlib

import slurmpy

launcher = slurmpy.Slurm("study", {"time": "01:00:00"}, date_in_name=False)
seeds = [launcher.run(f"echo train --seed {seed}", name_addition=f"seed{seed}") for seed in range(5)]
table = launcher.run("echo table", name_addition="table", depends_on=seeds)
given = pathlib.Path("submissions").read_text().splitlines()[-1]
print("jobs of the seeds:", seeds, "- the table's:", table)
options = [word for word in given.split() if word.startswith("--dependency=")]
print("sbatch is given", *options)
assert options == [f"--dependency=afterok:{seed}" for seed in seeds]
PYTHON
