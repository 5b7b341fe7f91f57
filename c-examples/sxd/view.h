/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* GET /.cluster: the cluster as this node sees it. Always answered at once, from memory. */
#ifndef SXD_VIEW_H
#define SXD_VIEW_H

#include "sxd.h"

void view_show(struct sxd *sx, struct http_req *r);

#endif
