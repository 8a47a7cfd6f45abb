"""Layered templates for Lago.

The way of one ``lago init``::

    LagoInitFile + indexes -> chains -> plan -> transfer -> store -> disks

==================  ======================================================
`lago_plugin`       puts our parts in the place of Lago's; what these do
                    there is in `lago_init` and `lago_export`
`lago_repair`       mends what Lago lacks on today's Python and qemu
`environment`       an init file: its repositories, what its disks stand on
`repository`        Lago's TemplateRepository, on ours
`template_store`    Lago's TemplateStore, on ours
`provision`         the use case: from wanted templates to a filled store
`sources`           asks repositories for indexes and what they leave open
`repositories`      where repositories are, the order of search
`index_reading`     one index: read, kept, checked (`gpg`)
`lookup`            small requests for what an index leaves open
`core`              decides; pure: index, chains, plan, qcow2 header
`providers`         read a source: http, file, and what others install
`transfer`          carries out a plan, layers in parallel
`store`             Lago's directory of images: locks, staging, commit
`prefixes`          environments on the disk: what their disks stand on
`initlock`          a LagoInitFile.lock and what it pins
`repairing`         fetches damaged images of the store again
`publishing`        makes, checks and grows repositories; also without Lago
                    by `__main__`
`repos_directory`   the repositories that people have added
`report`            the plan and the progress, as people see them; what else
                    they see is in ``report_*``
`cli`               the verb ``lago template-repo``: its options; what they
                    do is in `commands`
`sdk`               drop-in for ``lago.sdk``
==================  ======================================================
"""

__version__ = '0.1.0'
