"""Layered templates for Lago.

The way of one ``lago init``::

    LagoInitFile + indexes -> chains -> plan -> transfer -> store -> disks

The rooms, from the ground up; each knows only those above it in this list
(a test sees to that):

=================  =======================================================
`core`             values and decisions: chains, the plan, names; pure
`formats`          the bytes of images and compressed files; pure
`index`            ``repo.metadata`` and what it says; pure
`settings`         what somebody has configured
`tools`            processes, threads, locks, files: who starts and opens
`store`            Lago's directory of images: locks, staging, commit
`transfer`         carries out a plan, layers in parallel
`providers`        read a source: http, file, and what others install
`repositories`     where indexes are; reading and keeping them, look-ups
`environments`     what an init file wants, its lock; `provision`: the way
                   from wanted templates to a filled store
`lint`             what is wrong with a repository
`publishing`       makes and grows repositories
`report`           what people see
`commands`         the verb ``lago template-repo``
`plugin`           Lago: hooks, repairs, export, completion
`lago_plugin`      what Lago loads: puts our parts in the place of its own
`sdk`              drop-in for ``lago.sdk``
`__main__`         publishing without Lago
=================  =======================================================
"""

__version__ = '0.1.0'
