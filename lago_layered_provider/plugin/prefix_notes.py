"""Where our notes are on a prefix of Lago, and in its metadata."""

from __future__ import annotations

#: Set on a prefix: the path of its init file.
INIT_FILE = '_layered_init_file'

#: The key of a prefix's metadata: the store that knows of it, and as what.
NOTED = 'layered'

#: The key of a prefix's metadata: the images that its disks stand on, by the
#: names of the disks' files.
IMAGES = 'template-images'

#: Set on a prefix: whether virt-sysprep and virt-customize are to run.
TASKS = '_layered_tasks'
