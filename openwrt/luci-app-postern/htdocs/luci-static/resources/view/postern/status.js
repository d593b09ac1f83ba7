'use strict';
'require view';
'require fs';
'require poll';

/* How the gateway is doing, in LuCI's own look. Everything else is on Postern's own pages. */

function row(name, value) {
	return E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '33%' }, [ name ]),
		E('td', { 'class': 'td left' }, [ String(value) ])
	]);
}

function ask() {
	return fs.exec_direct('/usr/bin/postern', [ 'status', '--json' ], 'json');
}

function table(status) {
	if (!status || !status.sessions)
		return E('p', {}, [ _('Postern does not run. Switch it on with: uci set postern.@postern[0].enabled=1; uci commit postern; /etc/init.d/postern start') ]);
	return E('div', {}, [
		E('table', { 'class': 'table' }, [
			row(_('Version'), status.version),
			row(_('Online'), status.sessions.online),
			row(_('Running for (minutes)'), Math.floor(status.uptime_s / 60))
		].concat(status.zones.map(function (zone) {
			return row(_('Guest network %s').format(zone.name), _('%d online, %d of %d addresses given out').format(zone.online, zone.leases, zone.pool));
		}))),
		E('ul', {}, status.warnings.map(function (text) { return E('li', {}, [ text ]); }))
	]);
}

return view.extend({
	load: ask,

	render: function (status) {
		var place = E('div', { 'id': 'postern-status' }, [ table(status) ]);
		poll.add(function () {
			return ask().then(function (fresh) { place.replaceChildren(table(fresh)); });
		}, 5);
		return E('div', {}, [
			E('h2', {}, [ 'Postern' ]),
			place,
			E('p', {}, [ E('a', { 'class': 'btn cbi-button', 'href': 'https://' + window.location.hostname + ':8443/', 'target': '_blank', 'rel': 'noreferrer' }, [ _('Open the administration pages') ]) ])
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
