locals {
  # A region's private network, which Linode's control planes and nodes talk over; and where NodeBalancers come from
  private_network = "192.168.128.0/17"
  nodebalancers   = "192.168.255.0/24"

  # What Linode names as needed by a standard LKE cluster, in "Network and firewall details" and in its
  # cloud-firewall-controller, save for ICMP from everywhere
  node_rules = {
    kubelet      = { protocol = "TCP", ports = "10250,10256", from = local.private_network }
    wireguard    = { protocol = "UDP", ports = "51820", from = local.private_network }
    dns-tcp      = { protocol = "TCP", ports = "53", from = local.private_network }
    dns-udp      = { protocol = "UDP", ports = "53", from = local.private_network }
    calico-bgp   = { protocol = "TCP", ports = "179", from = local.private_network }
    calico-typha = { protocol = "TCP", ports = "5473", from = local.private_network }
    calico-ipip  = { protocol = "IPENCAP", ports = null, from = local.private_network }
    icmp         = { protocol = "ICMP", ports = null, from = local.private_network }
    nodeport-tcp = { protocol = "TCP", ports = "30000-32767", from = local.nodebalancers }
    nodeport-udp = { protocol = "UDP", ports = "30000-32767", from = local.nodebalancers }
  }
}

# The world reaches the NodeBalancer on 80 and 443, never a node.
resource "linode_firewall" "nodes" {
  # checkov:skip=CKV_LIN_6: nodes call SMS and identity providers, the database and registries, whose addresses nobody lists
  label           = "${local.label}-nodes"
  tags            = local.tags
  inbound_policy  = "DROP"
  outbound_policy = "ACCEPT"
  linodes         = [for node in data.linode_instances.nodes.instances : node.id]

  dynamic "inbound" {
    for_each = local.node_rules

    content {
      label    = "accept-${inbound.key}"
      action   = "ACCEPT"
      protocol = inbound.value.protocol
      ports    = inbound.value.ports
      ipv4     = [inbound.value.from]
    }
  }
}

# In front of the NodeBalancer that Kubernetes makes: its Service names it by the annotation
# service.beta.kubernetes.io/linode-loadbalancer-firewall-id.
resource "linode_firewall" "load_balancer" {
  # checkov:skip=CKV_LIN_6: a NodeBalancer calls nobody but its nodes
  label           = "${local.label}-lb"
  tags            = local.tags
  inbound_policy  = "DROP"
  outbound_policy = "ACCEPT"

  inbound {
    label    = "accept-web"
    action   = "ACCEPT"
    protocol = "TCP"
    ports    = "80,443"
    ipv4     = ["0.0.0.0/0"]
    ipv6     = ["::/0"]
  }

  lifecycle {
    # Kubernetes attaches it
    ignore_changes = [nodebalancers]
  }
}
