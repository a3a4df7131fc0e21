# One of the two is there: the domain that the account has, or the one that is made.
data "linode_domain" "existing" {
  count = var.create_domain ? 0 : 1

  domain = var.domain
}

resource "linode_domain" "main" {
  count = var.create_domain ? 1 : 0

  type      = "master"
  domain    = var.domain
  soa_email = var.soa_email
  tags      = local.tags
}

locals {
  domain_id = tonumber(one(concat(data.linode_domain.existing[*].id, linode_domain.main[*].id)))

  # The NodeBalancer's addresses are known once Kubernetes has made it
  records = { for type, address in { A = var.load_balancer_ipv4, AAAA = var.load_balancer_ipv6 } : type => address if address != null }
}

resource "linode_domain_record" "service" {
  for_each = local.records

  domain_id   = local.domain_id
  record_type = each.key
  name        = var.hostname
  target      = each.value
  ttl_sec     = 300
}
