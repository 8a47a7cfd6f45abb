"""Layered templates for Lago.

The way of one ``lago init``::

    LagoInitFile + indexes -> chains -> plan -> transfer -> store -> disks

==================  ======================================================
`lago_plugin`       hooks into Lago; `lago_repair` mends what Lago lacks
`repository`        Lago's TemplateRepository and TemplateStore, on ours
`provision`         the use case: from wanted templates to a filled store
`sources`           asks repositories for indexes and what they leave open
`core`              decides; pure: index, chains, plan, qcow2 header
`providers`         read a source: http, file, and what others install
`transfer`          carries out a plan, layers in parallel
`store`             Lago's directory of images: locks, staging, commit
`report`            the plan and the progress, as people see them
`cli`               the verb ``lago template-repo``
==================  ======================================================
"""

__version__ = '0.1.0'
