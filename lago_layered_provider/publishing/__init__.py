"""Make, check and grow repositories: FILES, PROCESSES, NETWORK.

What is decided is pure and in `core`: `publication`, `lint`, `specs`,
`virt_index`. Nothing here knows Lago.

====================  ====================================================
`create`              the use case of `create`; `place` draws the directory
`finding`             the images that are there, and what their heads say
`writing`, `packing`  one image: its base's name, digests, compression
`indexing`            the index: what stays of it, the new one, the signature
`mirroring`           the use case of `mirror`; `copying` is one file of it
`linting`             the use case of `lint`; what is looked at: `inspection`,
                      `lint_sources`, `lint_documents`; `reading`
`virt_index`          the index of virt-builder; `documents` writes it
`building`            the use case of `build`: `spec_files`, `schedule`,
                      `fetching`, `build_state`, `build_log`
`layering`            `add-layer` and `flatten`, on `local_images`
`scratch`             work where nobody looks, what a disk says
====================  ====================================================
"""
